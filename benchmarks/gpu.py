"""What training at full scale gives on this machine's GPU: one command, without network and without any data set.

    python benchmarks/gpu.py > benchmarks/gpu.txt        # hours; goes on where it was ended
    python benchmarks/gpu.py --only pretrain bf16        # cells whose name has both in it
    python benchmarks/gpu.py --quick                     # a small form, on a CPU too, as far as that goes

Each cell is an experiment's configuration as it is shipped, for so long on made-up data: pictures of COCO's sizes, random
words. Its updates are the product's own, with workers that decode, in a precision, compiled or not. Told are pairs a second;
the operations that `pixelbert-plan` counts for such batches, a second, and their share of what this device multiplies matrices
at, measured just before in the same process and type; the highest memory, of tensors and of torch's pools; and how much longer
the updates took than the same number of them on a batch that was there, which is waiting for data. For scoring every pair a
part of the matrix is measured, and the whole reckoned. The last tables say whether the goals are met, and what an experiment
takes.

Each cell runs in a process of its own. One that has no memory, or is not available, says so, and the next one goes on. What was
measured is kept in --keep, with machine, versions and commit; what is there of these is not measured again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import gpu_cells
import torch
from full_scale import BACKBONES, NAMES, TITLES, Experiment
from gpu_cells import COMPILES, HAS_COMPILE, PRECISIONS, SCORED, SMALL, Cell, cells, make_data

import pixelbert_plugin
from pixelbert_plugin.planning.batches import Shape
from pixelbert_plugin.planning.schedule import TERA
from pixelbert_plugin.registry import plugins

HERE = Path(__file__)
ENVIRONMENT = dict(os.environ)  # of the cells
LIMIT = 1800  # seconds that a cell may take
GOAL = 0.45  # of the measured rate of matrix products, in pre-training
SCORINGS = (  # what, images, texts, hours that are the goal
    ("five million pairs: Flickr30K, 1,000 images", 1000, 5000, 8 / 60),
    ("COCO, 5,000 images with 25,010 texts", 5000, 25010, 3.0),
)
HEAD = f"{'cell':<52}{'pairs/s':>10}{'TFLOP/s':>9}{'of matmul':>11}{'GB':>14}{'waiting':>9}  note"
Record = dict[str, Any]


def ask(**what: Any) -> Record:
    """A process of this program's own. Its failure is the record's "error"."""
    command = [sys.executable, str(HERE), "--cell", json.dumps(what)]
    try:
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"failed: not done within {LIMIT} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return {"error": f"failed: {lines[-1][:200]}"}
    found: Record = json.loads(done.stdout.splitlines()[-1])
    return found


def versions() -> Record:
    described = ["git", "-C", str(HERE.parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = f"version {pixelbert_plugin.__version__}"
    return {**ask(), "torch": torch.__version__, "commit": commit}


class Kept:
    """Records of a file, a line each; of other settings than `settings` they are left alone."""

    def __init__(self, path: Path | None, settings: dict[str, Any]):
        self.path, self.settings = path, settings
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        self.records = [json.loads(line) for line in lines]

    def find(self, cell: Cell) -> Record | None:
        wanted = {**self.settings, **asdict(cell)}
        return next((record for record in self.records if wanted.items() <= record.items()), None)

    def add(self, record: Record) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps({**self.settings, **record})}\n")


def left_out(precisions: Sequence[str], compiles: Sequence[str], is_cpu: bool, no_apex: str | None) -> dict[str, str]:
    """Why, by what is not available here."""
    found = {}
    if no_apex is not None:
        found |= {name: no_apex for name in precisions if name.startswith("apex")}
    if is_cpu:
        found |= {name: "a GPU's" for name in precisions if name in ("tf32", "fp16")}
    if not HAS_COMPILE and "blocks" in compiles:
        found["blocks"] = "this version has no training.compile"
    return found


@cache
def experiment(name: str, overrides: tuple[str, ...]) -> Experiment:
    return Experiment(name, overrides)


def operations(record: Record, overrides: tuple[str, ...]) -> float:
    """Those of all that was done in a cell's `seconds`."""
    made = experiment(record["experiment"], overrides)
    simulation, config = made.planner.simulation, made.config
    short = config.processors.image.params.short_edge
    size, tokens = (short, round(record["pixels_of_image"] / short)), round(record["tokens_of_text"])
    with simulation:
        if record["kind"] == "training":
            groups = record["images_of_micro_batch"] / (simulation.task.images_per_sample or 1)
            return record["samples"] * simulation.operations_per_sample(record["micro_samples"], groups, tokens, size)
        evaluation = simulation.evaluation(Shape(record["batch_size"], record["batch_size"], tokens, size))
    return evaluation.operations * record["pairs"] + evaluation.operations_per_image * record["images"]


def row(cell: Cell, record: Record, overrides: tuple[str, ...]) -> str:
    """A line of the table; the record gets "rate", operations a second."""
    pools = [f"{record[name] / 1e9:.1f}" for name in ("allocated", "reserved") if name in record]
    memory = " / ".join(pools)
    if "error" in record:
        return f"{cell.name:<52}{'':>30}{memory:>14}{'':>9}  {record['error']}"
    record["rate"] = operations(record, overrides) / record["seconds"]
    notes = [record["used"]]
    if cell.kind == "training":
        waiting = max(0.0, 1 - record["seconds_of_held"] / record["seconds"])
        told = f"{waiting:.0%}"
        notes.append(f"{record['updates']} updates, {record['workers']} workers")
        if record["skipped"]:
            notes.append(f"{record['skipped']} of them overflowed and were skipped")
    else:
        told = ""
        notes.append(f"{record['images']} images, of which {record['seconds_of_images'] / record['seconds']:.0%} of the time")
    if record["loss"] != record["loss"]:
        notes.append("not finite")
    share = record["rate"] / record["matmul"]
    figures = f"{record['pairs'] / record['seconds']:>10.1f}{record['rate'] / TERA:>9.3g}{share:>11.0%}"
    return f"{cell.name:<52}{figures}{memory:>14}{told:>9}  {'; '.join(notes)}"


def best(records: Sequence[Record], names: Sequence[str], kind: str = "training") -> Record | None:
    """The experiment's fastest cell."""
    rated = [record for record in records if "rate" in record and record["experiment"] in names and record["kind"] == kind]
    return max(rated, key=lambda record: record["pairs"] / record["seconds"], default=None)


def told(record: Record) -> str:
    return f"{record['precision']}{'' if record['compile'] == 'none' else ', compiled ' + record['compile']}"


def goals(records: Sequence[Record]) -> Iterator[str]:
    for ending in BACKBONES:
        record = best(records, [f"pretrain{ending}"])
        if record is not None:
            share = record["rate"] / record["matmul"]
            verdict = "met" if share >= GOAL else "missed"
            yield f"pretrain{ending}: {share:.0%} of the measured matmul rate ({told(record)}); goal {GOAL:.0%}, {verdict}"
    for ending in BACKBONES:
        record = best(records, [f"{SCORED}{ending}"], "scoring")
        for what, images, texts, goal in SCORINGS if record is not None else ():
            per_image = record["seconds_of_images"] / record["images"]
            per_pair = (record["seconds"] - record["seconds_of_images"]) / record["pairs"]
            hours = (per_image * images + per_pair * images * texts) / 3600
            verdict = "met" if hours <= goal else "missed"
            backbone = "ResNeXt-152" if ending else "ResNet-50"
            yield f"{what}, {backbone}: {60 * hours:.1f} minutes ({told(record)}); goal {60 * goal:.0f}, {verdict}"


def full_scale(records: Sequence[Record], made: Callable[[str], Experiment]) -> Iterator[str]:
    """RESULTS.md's table, at the rate of each experiment's fastest cell."""
    yield f"| configuration | {' | '.join((*TITLES[:1], 'samples/s', 'TFLOP/s, measured', *TITLES[3:]))} | fastest in |"
    yield "|---" * (len(TITLES) + 2) + "|"
    for name in (f"{name}{ending}" for ending in BACKBONES for name in NAMES):
        record = best(records, [name, name.replace("coco", "flickr30k")])
        if record is not None:
            yield f"| `{name}` | {' | '.join(made(name).figures(record['rate'] / TERA))} | {told(record)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="cells that have each of these in their name")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="default: all; with --quick fp32 and bf16")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="endings, '' is ResNet-50's")
    parser.add_argument("--compile", nargs="+", choices=COMPILES, default=list(COMPILES))
    parser.add_argument("--pictures", type=int, default=1000, help="files that are made, of COCO's sizes, 0.1 MB each")
    parser.add_argument("--seconds", type=float, default=20, help="of updates that each cell measures, twice")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the configuration, for every cell")
    parser.add_argument("--keep", type=Path, help="file of what was measured; default gpu.jsonl, none with --quick")
    parser.add_argument("--quick", action="store_true", help="small images, model and batches")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        gpu_cells.main(arguments.cell)
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # this process counts operations; all of the GPU is the cells'
    plugins.load()
    about = versions()
    no_apex, is_cpu = about.pop("no_apex", None), about.get("device", "CPU").startswith("CPU")
    if is_cpu and not arguments.quick:
        parser.error(about.get("error", "torch sees no CUDA device; --quick runs the small form on a CPU"))
    seconds, pictures, keep = arguments.seconds, arguments.pictures, arguments.keep
    precisions = arguments.precisions or (["fp32", "bf16"] if arguments.quick else list(PRECISIONS))
    overrides = tuple(arguments.set)
    if arguments.quick:
        seconds, pictures, overrides = 0.0, min(pictures, 16), (*SMALL, *overrides)
    elif keep is None:
        keep = Path("gpu.jsonl")
    missing = left_out(precisions, arguments.compile, is_cpu, no_apex)
    print(", ".join(f"{name} {value}".removeprefix("device ") for name, value in about.items()))
    for name, reason in missing.items():
        print(f"{name}: not available: {reason}")
    there = ([each for each in given if each not in missing] for given in (precisions, arguments.compile))
    chosen = [cell for cell in cells(arguments.backbones, *there) if all(text in cell.name for text in arguments.only)]
    kept = Kept(keep, {**about, "overrides": list(overrides), "seconds_asked": seconds, "pictures": pictures})
    print(f"\n{HEAD}", flush=True)
    records = []
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), pictures)
        for cell in chosen:
            record = kept.find(cell)
            if record is None:
                record = {**asdict(cell), **ask(cell=asdict(cell), folder=folder, seconds=seconds, overrides=overrides)}
                if not record.get("error", "").startswith("failed"):
                    kept.add(record)
            print(row(cell, record, overrides), flush=True)
            records.append(record)
    print("\n" + "\n".join(goals(records)))
    print("\nprojects/pixelbert/RESULTS.md, what full scale would need, at the rates above:\n")
    print("\n".join(full_scale(records, lambda name: experiment(name, overrides))))
    if arguments.quick:
        print("\n(of the small form: they say that the program works, and nothing of any machine)")


if __name__ == "__main__":
    main()
