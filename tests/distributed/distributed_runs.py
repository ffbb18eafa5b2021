"""torchrun for the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

SEVERAL = Path(__file__).parent / "several_runs.py"


def environment() -> dict[str, str]:
    """One thread a process: three processes share a test machine's two cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def torchrun(processes: int, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={processes}",
        "--standalone",
        *options,
        *arguments,
    ]


def run_all(processes: int, in_float64: list[list[str]], as_they_are: list[list[str]], tmp_path: Path) -> None:
    """Run the commands one after another on so many processes; fails with what they printed."""
    runs = [{"arguments": arguments, "float64": True} for arguments in in_float64]
    runs += [{"arguments": arguments, "float64": False} for arguments in as_they_are]
    file = tmp_path / f"runs_on_{processes}.json"
    file.write_text(json.dumps(runs))
    command = [sys.executable] if processes == 1 else torchrun(processes)
    done = subprocess.run([*command, str(SEVERAL), str(file)], capture_output=True, text=True, env=environment(), timeout=1200)
    errors = [line for line in done.stderr.splitlines() if "error:" in line.lower()]
    assert done.returncode == 0, "\n".join([*errors, done.stdout[-2000:], done.stderr[-4000:]])


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder)]


def results(folder: Path) -> dict:
    content = json.loads((folder / "results.json").read_text())
    content.pop("training_seconds", None)
    return content
