"""MMF's trainer and ours on the same run: the losses of the first updates, and what both have learnt at the end.

    MMF_CHECKOUT=/path/to/mmf python benchmarks/mmf.py [--world data/mini] [--updates 200] [--only NAME …] > benchmarks/mmf.txt

easy-VQA and the miniature VQA 2.0 (`pixelbert-data make out=data/mini`), from the same random weights and identical batches.
The rates fall after three quarters of the updates; of VQA 2.0 an update has 512 questions, twice the recipe's, so that this
few teach enough.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
COMPARED = 20  # updates


def runs(world: Path, updates: int) -> dict[str, list[str]]:
    """Options of each run, by the data set's name."""
    common = [
        "run_type=train_val",
        "training.max_epochs=null",
        f"training.max_updates={updates}",
        f"training.evaluation_interval={updates}",
        f"training.checkpoint_interval={updates}",
        "training.log_interval=1",
        f"scheduler.params={{milestones: [{updates * 3 // 4}], unit: updates, gamma: 0.1, warmup_updates: 30}}",
    ]
    return {
        "easy_vqa": ["config=projects/easy_vqa/configs/easy_vqa.yaml", *common],
        "vqa2": [
            "config=projects/pixelbert/configs/mini/vqa2.yaml",
            f"env.data_dir={world.resolve()}",
            "training.batch_size=512",
            "training.micro_batch_size=512",
            "optimizer.transformer.params.lr=1e-3",
            *common,
        ],
    }


def run(module: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ['MMF_CHECKOUT']}:{ROOT / 'tests/mmf'}"}
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def results(options: list[str], start: Path, folder: Path) -> dict[str, float]:
    """The validation metrics of a checkpoint, whoever wrote it, by our evaluation."""
    run("pixelbert_plugin", *options, "run_type=val", f"checkpoint.pretrained={start}", f"env.save_dir={folder}")
    found = json.loads((folder / "results.json").read_text())
    return {key.rpartition("/")[2]: value for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, default=Path("data/mini"), help="the miniature world")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=("easy_vqa", "vqa2"), default=("easy_vqa", "vqa2"), help="these data sets")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, Python {platform.python_version()}; {options.updates} updates on a CPU")
    print(f"loss: largest relative difference of the first {COMPARED} updates; accuracy on the validation split, %\n")
    head = f"{'data set':<10} {'loss 1':>8} {f'loss {COMPARED}':>8} {'difference':>10}"
    print(f"{head}   {'MMF':>6} {'ours':>6} {'prior':>6}", flush=True)
    is_right = True
    chosen = runs(options.world, options.updates)
    for name in options.only:
        arguments = chosen[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            record = f"training.callbacks=[{{type: recorder, params: {{path: {folder}/mmf.jsonl}}}}]"
            given = ["model=pixelbert", f"dataset={name}", record, "plugins=[mmf_recorder]", f"env.save_dir={folder}/mmf"]
            run("pixelbert_plugin.mmf", *arguments, *given)
            run("pixelbert_plugin", *arguments, f"env.save_dir={folder}/own")
            theirs, own = (losses(folder / part)[:COMPARED] for part in ("mmf.jsonl", "own/log.jsonl"))
            difference = max(abs(a - b) / abs(b) for a, b in zip(theirs, own, strict=True))
            mmfs = results(arguments, folder / "mmf/current.ckpt", folder / "mmf_val")
            ours = results(arguments, folder / f"own/checkpoints/update_{options.updates:06d}", folder / "own_val")
        accuracies = [100 * value for value in (mmfs["accuracy"], ours["accuracy"], ours["question_prior"])]
        shown = " ".join(f"{value:6.2f}" for value in accuracies)
        print(f"{name:<10} {own[0]:8.4f} {own[-1]:8.4f} {difference:10.1e}   {shown}", flush=True)
        is_right &= difference < 1e-5 and min(accuracies[:2]) >= accuracies[2] + 10
    print(f"\nequal losses, and both at least 10 points above the question-only prior: {'yes' if is_right else 'NO'}")
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
