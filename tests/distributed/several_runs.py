"""Run after run of a list in the same processes.

Each run is {"arguments": [...], "float64": bool}. A program that computes the same thing in another order agrees with
itself in float64 to many digits on any machine; in float32 rounding hides what a slip would change. Blocks that are to be
compiled are traced alone: the compiler takes minutes for them, and is tested on one process.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from traced_blocks import traced_blocks

from pixelbert_plugin.commands.command import leave
from pixelbert_plugin.commands.run import main

COMPILED = "training.compile=blocks"


def traced_where(wanted: bool) -> AbstractContextManager:
    return traced_blocks() if wanted else nullcontext()  # it imports the compiler, which takes seconds


@contextmanager
def all_in_float64(wanted: bool) -> Iterator[None]:
    """Weights, images and sums in float64: torch's default type, and what `Tensor.float()` gives where sums need digits."""
    if not wanted:
        yield
        return
    default, to_float32 = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.set_default_dtype(default)
        torch.Tensor.float = to_float32


def run_several(runs: list[dict]) -> None:
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    status = 0
    for run in runs:
        with all_in_float64(run["float64"]), traced_where(COMPILED in run["arguments"]):
            status = status or main(run["arguments"])
    if dist.is_initialized():
        dist.destroy_process_group()
    leave(status)
