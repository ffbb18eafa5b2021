"""torchvision's residual blocks as torch.compile takes them: functions of tensors alone, where padding is a mask.

As they are, their norms look up where padding is, which no trace goes through.

I images, C channels, h w resolution before the block's stride, i j after it.
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pixelbert_plugin.encoders.masked_norm import MaskedBatchNorm2d, ValidArea
from pixelbert_plugin.types import CompileUnit


def compile_unit(block: nn.Module, area: ValidArea) -> CompileUnit:
    """A BasicBlock or Bottleneck whose norms are those of masked_norm.py, over `area`."""
    return CompileUnit(block, compute, partial(_inputs, block, area))


def compute(block: Any, values_IChw: Tensor, before_I1hw: Tensor | None, after_I1ij: Tensor | None) -> Tensor:
    """What the block gives, I C i j. Masks: bool, True at the images' own pixels; None where nothing is padded."""
    layers = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if hasattr(block, "conv3"):
        layers.append((block.conv3, block.bn3))
    found, own = values_IChw, before_I1hw
    for number, (convolution, norm) in enumerate(layers):
        if number:
            found = F.relu(found)
        if convolution.stride != (1, 1):
            own = after_I1ij
        found = norm.traceable(convolution(found), own)
    if block.downsample is not None:
        convolution, norm = block.downsample
        values_IChw = norm.traceable(convolution(values_IChw), after_I1ij)
    return F.relu(found + values_IChw)


def _inputs(block: Any, area: ValidArea, values_IChw: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    height, width = values_IChw.shape[-2:]
    strided = -(-height // block.stride), -(-width // block.stride)
    if isinstance(block.bn2, MaskedBatchNorm2d) and block.bn2.training:
        block.bn2.require_pixels(len(values_IChw) * strided[0] * strided[1])
    return values_IChw, area.inside((height, width)), area.inside(strided)
