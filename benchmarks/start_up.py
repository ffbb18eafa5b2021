"""What `pixelbert-run` takes to answer without a run, against importing torch alone: processor time of processes, in turn.

python benchmarks/start_up.py [--rounds 9] > benchmarks/start_up.txt
"""

import argparse
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

from side_by_side import HEAD, compare

ROOT = Path(__file__).parent.parent
RECIPE = "config=projects/pixelbert/configs/vqa2.yaml"
COMMANDS = {
    "--help": ["--help"],
    "--list": ["--list"],
    "--describe encoder": ["--describe", "encoder"],
    "--describe pixelbert": ["--describe", "pixelbert"],
    "config=… --print-config": [RECIPE, "--print-config"],
    "the same of a plugin (easy-VQA)": ["config=projects/easy_vqa/configs/easy_vqa.yaml", "--print-config"],
}


def python(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)


def children() -> float:
    """Processor time of all processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of each pair, in turn")
    rounds = parser.parse_args().rounds
    print(f"{platform.python_implementation()} {platform.python_version()}, torch {importlib.metadata.version('torch')}")
    print(
        "naive: python -c 'import torch'; ours: the whole command, Python's own start in both; 1 / ratio is the share of it\n"
    )
    print(HEAD)
    for what, command in COMMANDS.items():
        pair = (lambda: python("-c", "import torch"), lambda command=command: python("-m", "pixelbert_plugin", *command))
        found = compare(what, *pair, rounds, clock=children)
        found.note = f"{found.ours / found.naive:.2f} of it"
        print(found, flush=True)


if __name__ == "__main__":
    main()
