"""What batch norms of padded batches cost: passes of a ResNet-50 and of one norm, with torch's BatchNorm2d and with ours.

    python benchmarks/norms.py [--rounds 5] [--short-edge 224] > benchmarks/norms.txt

"same shape": both ways are given the padded batch, of which torch's norm takes padding for pixels: what our norms cost.
"same pixels": torch's way is given a batch of one size, of as many real pixels: padding's convolutions are counted too.
Batches: eight images of like size, as bucketing makes most of them, and of mixed sizes; a pass is forward and backward.
Ratios count processor time, the median of interleaved rounds; + is what ours takes more.
"""

import argparse
import copy
from collections.abc import Callable, Iterator

import torch
import torchvision
from side_by_side import HEAD, Ratio, compare, machine
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.encoders.masked_norm import MaskedBatchNorm2d, ValidArea
from pixelbert_plugin.registry import plugins

LIKE = [
    (384, 512),
    (384, 509),
    (384, 512),
    (384, 504),
    (384, 512),
    (384, 512),
    (384, 498),
    (384, 512),
]  # for a short edge of 384
MIXED = [(384, 512), (384, 512), (384, 576), (400, 512), (384, 480), (384, 512), (384, 512), (384, 550)]


def batch(sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Images padded with zeros, and their sizes."""
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    images = torch.zeros(len(sizes), 3, height, width)
    for image, (rows, columns) in zip(images, sizes, strict=True):
        image[:, :rows, :columns] = torch.randn(3, rows, columns)
    return images, torch.tensor(sizes)


def uniform(sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """As many pixels in images of one size."""
    height = min(height for height, _ in sizes)
    width = round(sum(rows * columns for rows, columns in sizes) / len(sizes) / height)
    return batch([(height, width)] * len(sizes))


class Plain(nn.Module):
    """torchvision's ResNet-50 as far as ours goes."""

    def __init__(self, ours: nn.Module):
        super().__init__()
        whole = torchvision.models.resnet50()
        whole.load_state_dict(ours.resnet.state_dict(), strict=False)
        self.trunk = nn.Sequential(*list(whole.children())[:-2])

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.max_pool2d(self.trunk(images), 2)


def networks(sizes: list[tuple[int, int]], rounds: int, name: str) -> Iterator[Ratio]:
    torch.manual_seed(0)
    ours = registry.build("encoder", "resnet50", {}, "e").train()
    theirs = Plain(ours).train()
    images, sizes_I2 = batch(sizes)
    share = 1 - float(sizes_I2.prod(1).sum()) / (len(images) * images.shape[-2] * images.shape[-1])
    precisions = (("fp32", False), ("bf16", True))

    def step(model: nn.Module, is_low: bool, *given: Tensor) -> Callable[[], object]:
        def run() -> None:
            model.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_low):
                found = model(*given)
            (found if isinstance(found, Tensor) else found.pixels).float().square().mean().backward()

        return run

    for precision, is_low in precisions:
        for kind, given in (("same shape", images), ("same pixels", uniform(sizes)[0])):
            what = f"ResNet-50, {name}, {kind}, {precision}"
            ratio = compare(what, step(theirs, is_low, given), step(ours, is_low, images, sizes_I2), rounds)
            ratio.note = f"{100 * (1 / ratio.times - 1):+.0f} %; padding is {100 * share:.0f} % of the batch"
            yield ratio


def one_norm(sizes: list[tuple[int, int]], rounds: int, name: str) -> Iterator[Ratio]:
    """256 channels at a quarter of the images' resolution, a norm of the first stage."""
    sizes_I2 = torch.tensor(sizes) // 4
    height, width = sizes_I2.max(0).values.tolist()
    area = ValidArea()
    area.set(sizes_I2, (height, width), torch.device("cpu"))
    ours, theirs = MaskedBatchNorm2d(256, area).train(), nn.BatchNorm2d(256).train()
    values = torch.randn(len(sizes), 256, height, width)

    def run(norm: nn.Module) -> Callable[[], object]:
        given = copy.deepcopy(values).requires_grad_()
        gradient = torch.randn_like(values)
        return lambda: norm(given).backward(gradient)

    ratio = compare(f"one norm of 256 channels, {name}", run(theirs), run(ours), 3 * rounds)
    ratio.note = f"{100 * (1 / ratio.times - 1):+.0f} %"
    yield ratio


ROWS = {function.__name__: function for function in (one_norm, networks)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each pair, interleaved")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--short-edge", type=int, default=224, help="pixels of most images")
    arguments = parser.parse_args()
    plugins.load()
    print(machine())
    print(f"images of about {arguments.short_edge} × {arguments.short_edge * 4 // 3}; naive: torch's BatchNorm2d")
    print(f"\n{HEAD}")
    for name, sizes in (("like sizes", LIKE), ("mixed sizes", MIXED)):
        scaled = [(rows * arguments.short_edge // 384, columns * arguments.short_edge // 384) for rows, columns in sizes]
        for rows in arguments.only:
            for row in ROWS[rows](scaled, arguments.rounds, name):
                print(row, flush=True)


if __name__ == "__main__":
    main()
