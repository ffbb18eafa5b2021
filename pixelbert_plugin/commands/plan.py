"""`pixelbert-plan`: memory, time and cost of a run, before anything is downloaded or rented."""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pixelbert_plugin.commands.command import Parser, run_command, split_config, tell

if TYPE_CHECKING:
    from rich.table import Table

    from pixelbert_plugin.planning.planner import Plan

EPILOG = """\
examples:
  pixelbert-plan config=projects/pixelbert/configs/pretrain.yaml gpus=8xH100 price_per_gpu_hour=2.5
  pixelbert-plan config=projects/pixelbert/configs/vqa2.yaml gpus=1xRTX4090 training.micro_batch_size=16
  pixelbert-plan config=projects/pixelbert/configs/vqa2.yaml gpus=4x48GB@360 utilization=0.4 format=json
  pixelbert-plan config=projects/pixelbert/configs/coco_retrieval.yaml gpus=8xA100-80 rate=120

options of its own, beside the configuration's:
  gpus=NxCARD            H200, H100, A100-80, A100-40, V100-32, V100-16, L4, A10, RTX4090, T4, or GB of memory and TFLOP/s
  price_per_gpu_hour=X   in any currency
  utilization=X          share of the data sheet's rate that is kept up; 0.35, a guess
  rate=X                 TFLOP/s of one GPU, measured (python benchmarks/gpu.py on it), instead
  samples=N              training samples of an epoch; else of the data where they are, or the official number
  image_size=HxW         pixels of the files; else of the data where they are, or 480x640
  tokens=N               of a text, for operations (16); memory is reckoned for the longest that there may be
  answers=N              of VQA's vocabulary where it would be counted in data that are not here (3129)
  format=json            numbers for a program: bytes, operations, hours

Nothing is downloaded and no weight is read: the model runs over tensors without data, as on the GPU that is named. Below the
tables stands what was assumed (docs/planning.md).

exit status: 0 also where it does not fit, which the table says; 1 an unexpected error, 2 wrong input, 130 interrupted"""


def parser() -> Parser:
    parser = Parser("pixelbert-plan", "What a run needs: memory, time and cost, before renting.", EPILOG)
    parser.add_common("config=PATH gpus=NxCARD, the options below and any key of the configuration")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(parser(), argv, _main, "the same command starts anew")


def _main(arguments: argparse.Namespace) -> int:
    from pixelbert_plugin import config as configuration
    from pixelbert_plugin.config.files import command_line
    from pixelbert_plugin.planning.options import PlanConfig
    from pixelbert_plugin.planning.planner import plan
    from pixelbert_plugin.registry.schema import merge

    names = {field.name for field in dataclasses.fields(PlanConfig)}
    own = [option for option in arguments.options if option.partition("=")[0] in names]
    path, overrides = split_config(
        [option for option in arguments.options if option not in own], "name the configuration to plan (--help)"
    )
    options = merge(PlanConfig, command_line(own))
    with _without_remarks():
        made = plan(configuration.resolve(path, overrides), options)
    tell(json.dumps(made.as_json(), indent=2, ensure_ascii=False) if options.format == "json" else shown(made))
    return 0


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Those on data and weights are for a run."""
    logger = logging.getLogger("pixelbert_plugin")
    former = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(former)


def shown(made: "Plan") -> str:
    """The plan as tables, and what was assumed."""
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        for table in (_model(made), _memory(made), _micro_batch(made), _time(made)):
            console.print(table, end="\n\n")
    return captured.get() + "\n".join(["assumed", *(f"  {line}" for line in made.assumed)])


def _model(made: "Plan") -> "Table":
    table = _table("parameters", "")
    for name, number in made.parameters.items():
        table.add_row(name, f"{number:,}")
    table.add_row("in all", f"{sum(made.parameters.values()):,}")
    return table


def _memory(made: "Plan") -> "Table":
    from pixelbert_plugin.planning.cards import GB

    gpus, memory, fit = made.gpus, made.memory, made.fit
    table = _table(f"memory of each of {gpus.number} × {gpus.card.name}", "GB")
    for name, value in dataclasses.asdict(memory).items():
        if value:
            table.add_row(name.replace("_", " "), f"{value / GB:,.2f}")
    table.add_section()
    table.add_row("training", f"{memory.total / GB:,.2f}")
    table.add_row("needed, evaluations counted", f"{fit.needed / GB:,.2f}")
    table.add_row("the card has", f"{fit.available / GB:,.2f}")
    table.add_row("", "fits" if fit.fits else "does NOT fit")
    return table


def _micro_batch(made: "Plan") -> "Table":
    update, fit = made.update, made.fit
    table = _table(f"micro-batches of an update of {update.batch_size} pairs", "")
    table.add_row("pairs, times", f"{update.micro_batch_size}, {update.micro_batches}")
    table.add_row("images", f"{update.images} of {update.image_size[0]} × {update.image_size[1]} pixels")
    table.add_row("tokens", f"up to {update.longest}")
    largest = "none: not even one sample" if fit.largest is None else f"{fit.largest}, {fit.micro_batches}"
    table.add_row("largest that fits, times", largest)
    return table


def _time(made: "Plan") -> "Table":
    from pixelbert_plugin.planning.cards import GB
    from pixelbert_plugin.planning.schedule import TERA

    table = _table(f"time at {made.tflops:,.0f} TFLOP/s a GPU, {made.precision}, parallel: {made.parallel}", "")
    table.add_row("operations of a sample", f"{made.sample_operations / TERA:,.3f} TFLOP")
    table.add_row("operations of an update, all GPUs", f"{made.update_operations / TERA:,.1f} TFLOP")
    seconds = made.update_operations / (made.tflops * TERA * made.gpus.number)
    table.add_row("an update", f"{seconds:,.3f} s")
    if made.course is not None:
        course = made.course
        table.add_row("samples of an epoch", f"{course.epoch_samples:,}")
        table.add_row("samples, updates", f"{course.samples:,}, {course.updates:,}")
        table.add_row("evaluations while training", f"{course.evaluations:,}")
    if made.hours is not None:
        hours = made.hours
        table.add_row("training", f"{hours.training:,.2f} hours")
        table.add_row("evaluation", f"{hours.evaluation:,.2f} hours")
        table.add_section()
        table.add_row("in all", f"{hours.total:,.2f} hours, {hours.total * made.gpus.number:,.1f} GPU-hours")
        if hours.price is not None:
            table.add_row("cost", f"{hours.price:,.2f}")
    table.add_row("a checkpoint, all that are kept", f"{made.checkpoint / GB:,.2f} GB, {made.checkpoints / GB:,.2f} GB")
    return table


def _table(what: str, unit: str) -> "Table":
    from rich.table import Table

    table = Table(what, show_edge=False)
    table.add_column(unit, justify="right", overflow="fold")
    return table


if __name__ == "__main__":
    sys.exit(main())
