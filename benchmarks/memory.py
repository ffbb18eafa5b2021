"""What a training step keeps for its backward pass: the naive way, ours, and ours with training.gradient_checkpointing=true.

    python benchmarks/memory.py [--rounds 3] [--short-edge 224] > benchmarks/memory.txt

The settings of benchmarks/steps.py, float32. Kept is every tensor that autograd saves in the forward pass, each piece of memory
once, parameters and the batch aside, and how much of it in the CNN: ours runs it once an image, the naive way once a text.
With checkpointing, the backward pass also holds the inside of the block that it has just computed again: the largest is told.
The price of a forward and backward pass: operations of matrix products and convolutions as torch counts them, and processor
time, the median of interleaved rounds.
"""

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import machine, own_time
from steps import TOKENS, Setting, pretrain_losses, vocabulary, vqa_loss
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.precision.native import Fp32
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.training.recomputation import recompute_blocks
from pixelbert_plugin.types import Batch

ROWS = (
    ("pretrain", "pre-training, 10 pairs an image", (2, 5, 2), pretrain_losses),
    ("vqa", "VQA, 4 questions an image", (2, 4, 1), vqa_loss),
)


def kept(work: Callable[[], object], others: list[Tensor]) -> int:
    """Bytes that autograd keeps during `work`, `others` aside."""
    aside = {tensor.untyped_storage().data_ptr() for tensor in others}
    held: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in aside:
            held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    del result
    return sum(storage.nbytes() for storage in held.values())


def operations(forward: Callable[[], Tensor]) -> int:
    """Of a forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        forward().backward()
    return counter.get_total_flops()


def kept_within(part: nn.Module, forward: Callable[[], object], others: list[Tensor]) -> int:
    """Bytes that autograd keeps while `part`, of what `forward` runs, is computed."""
    found: list[int] = []
    own = part.forward

    def measured(*inputs: object) -> object:
        results: list[object] = []
        found.append(kept(lambda: results.append(own(*inputs)), others))
        return results[0]

    part.forward = measured
    try:
        forward()
    finally:
        del part.forward
    return sum(found)


def largest_block(model: nn.Module, forward: Callable[[], object], others: list[Tensor]) -> int:
    """Bytes of the block that keeps most, of those that gradient checkpointing computes again."""
    found: list[int] = []
    for unit in model.shard_units():

        def measured(*inputs: object, own: Callable[..., object] = unit.forward, **named: object) -> object:
            results: list[object] = []
            found.append(kept(lambda: results.append(own(*inputs, **named)), others))
            return results[0]

        unit.forward = measured
    forward()
    return max(found)


def table(setting: Setting, batch: Batch, losses: Callable[[dict[str, Tensor], Batch], Tensor], rounds: int) -> list[str]:
    precision = Fp32(torch.device("cpu"))
    naive, ours = copy.deepcopy(setting.naive).train(), copy.deepcopy(setting.model).train()
    again = copy.deepcopy(ours)
    recompute_blocks(again, "pixelbert")
    images = batch.images[batch.image_index[:, 0]]

    def forward_naive() -> Tensor:
        return losses(naive(batch.input_ids, batch.text_mask, images), batch)

    def forward_of(model: nn.Module) -> Callable[[], Tensor]:
        return lambda: sum(Losses(model, setting.task, precision)(batch).values())

    ways: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "naive": (naive, forward_naive),
        "ours": (ours, forward_of(ours)),
        "ours, checkpointing": (again, forward_of(again)),
    }
    given = [images, batch.images, batch.input_ids, *batch.targets.values()]
    aside = {name: [*model.parameters(), *model.buffers(), *given] for name, (model, _) in ways.items()}
    sizes = {name: kept(forward, aside[name]) for name, (_, forward) in ways.items()}
    in_cnn = {
        name: kept_within(cnn, ways[name][1], aside[name]) for name, cnn in (("naive", naive.cnn), ("ours", ours.image_encoder))
    }
    counts = {name: operations(forward) for name, (_, forward) in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + bool(rounds)):
        for name, (model, forward) in ways.items():
            began = own_time()
            forward().backward()
            seconds[name].append(own_time() - began)
            model.zero_grad()
    took = {name: statistics.median(each[1:] or [0.0]) for name, each in seconds.items()}  # the first warms up
    blocks = copy.deepcopy(ours)
    extra = largest_block(blocks, forward_of(blocks), list(blocks.parameters()))
    lines = [
        f"  {name:<22}{size / 2**20:>9.1f} MiB{size / sizes['naive']:>9.3f}"
        + (f"{in_cnn[name] / 2**20:>9.1f} MiB" if name in in_cnn else " " * 13)
        + f"{counts[name] / counts['naive']:>20.2f}{counts[name] / counts['ours']:>9.2f}"
        + (f"{took[name] / took['naive']:>14.2f}{took[name] / took['ours']:>9.2f}" if rounds else "")
        for name, size in sizes.items()
    ]
    return [*lines, f"  the largest block that is computed again holds {extra / 2**20:.1f} MiB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each way, interleaved; 0: the time is not measured")
    parser.add_argument("--short-edge", type=int, default=224, help="pixels; the longer edge is 4/3 of it")
    arguments = parser.parse_args()
    plugins.load()
    size = (arguments.short_edge, arguments.short_edge * 4 // 3)
    print(machine())
    print(f"images of {size[0]} × {size[1]}, texts of {TOKENS} tokens, float32\n")
    time = f"{'time ÷ naive':>14}{'÷ ours':>9}" if arguments.rounds else ""
    print(f"{'':<24}{'kept':>9}    {'÷ naive':>9}{'in the CNN':>13}{'operations ÷ naive':>20}{'÷ ours':>9}{time}")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary(Path(folder))
        for task, what, (images, texts, each), losses in ROWS:
            setting = Setting(task, Path(folder), size)
            batch = setting.batch(images, texts, each)
            print(what, f"(outputs within {setting.difference(batch):.0e})")
            print(*table(setting, batch, losses, arguments.rounds), sep="\n", flush=True)


if __name__ == "__main__":
    main()
