"""Residual blocks with padding as a mask, against the same blocks that look it up; in float64."""

from copy import deepcopy

import pytest
import torch
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from pixelbert_plugin.encoders.masked_norm import NORMS, ValidArea
from pixelbert_plugin.encoders.residual import compile_unit
from pixelbert_plugin.errors import UserError

CPU = torch.device("cpu")
SIZES, PADDED = [(9, 13), (6, 13), (9, 4)], (9, 13)


def made(kind, norm, stride, is_padded, stride_in_1x1=False):
    """A block of 8 channels with a shortcut of its own where it strides, its area, and values."""
    torch.manual_seed(1)
    area = ValidArea()

    def norms(channels):
        return NORMS[norm](channels, area)

    width = 8 // kind.expansion
    shortcut = torch.nn.Sequential(conv1x1(8, 8, stride), norms(8)) if stride > 1 else None
    block = kind(8, width, stride, shortcut, norm_layer=norms).double().train()
    if stride_in_1x1:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    for value in (*block.parameters(), *block.buffers()):
        if value.dim() == 1:  # norms' scales, shifts and statistics
            value.data.uniform_(0.5, 1.5)
    sizes = torch.tensor(SIZES if is_padded else [PADDED] * 3)
    area.set(sizes, PADDED, CPU)
    return block, area, area.clear(torch.randn(3, 8, *PADDED, dtype=torch.float64))


def trained(block, function, values):
    given = values.clone().requires_grad_()
    found = function(given.clone())
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=found.dtype)).sum().backward()
    return [found, given.grad, *(p.grad for p in block.parameters()), *block.buffers()]


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize(
    ("kind", "norm", "stride", "moved", "trains"),
    [
        (BasicBlock, "trainable", 1, False, True),
        (BasicBlock, "frozen", 2, False, True),
        (Bottleneck, "trainable", 2, False, True),
        (Bottleneck, "trainable", 2, True, True),  # MSRA's: the first 1×1 strides
        (Bottleneck, "trainable", 1, False, False),  # a frozen CNN
    ],
)
def test_values_gradients_and_statistics_are_the_same(kind, norm, stride, moved, trains, is_padded):
    block, area, values = made(kind, norm, stride, is_padded, moved)
    block.train(trains)
    other, own = deepcopy((block, area))
    unit = compile_unit(other, own)
    expected = trained(block, block, values)
    found = trained(other, lambda given: unit.function(other, *unit.inputs(given)), values)
    assert len(found) == len(expected) > 2
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
    if is_padded:
        outside = ~own.inside(tuple(found[0].shape[-2:]))
        assert outside.any() and not found[0].masked_select(outside).any()


def test_masks_of_every_resolution_are_the_paddings():
    """3 → 2 → 1 rows: at the last one the images differ no more, and a mask says so."""
    area = ValidArea()
    area.set(torch.tensor([(3, 5), (2, 5)]), (3, 5), CPU)
    found = [area.inside(size) for size in ((3, 5), (2, 3), (1, 2))]
    assert [mask.flatten(2).sum(2).flatten().tolist() for mask in found] == [[15, 10], [6, 3], [2, 2]]
    assert area.padding((1, 2)) is None and area.padding((3, 5)).own == 25
    area.set(torch.tensor([(3, 5)] * 2), (3, 5), CPU)
    assert area.inside((3, 5)) is None


def test_a_single_pixel_is_no_batch_to_compiled_blocks_either():
    block, area, _ = made(BasicBlock, "trainable", 2, False)
    area.set(torch.tensor([(2, 2)]), (2, 2), CPU)
    unit = compile_unit(block, area)
    with pytest.raises(UserError, match="the single pixel that is left"):
        unit.inputs(torch.ones(1, 8, 2, 2))
    block.eval()
    assert len(unit.inputs(torch.ones(1, 8, 2, 2))) == 3
