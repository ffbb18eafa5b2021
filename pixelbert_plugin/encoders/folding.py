"""A ResNet for inference alone: each batch norm folded into the convolution before it, and channels last.

In evaluation a norm is a scale and a shift of every channel, which the convolution's weights and bias can be. It computes the
same up to rounding, in less time; it can be trained no more.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_plugin.encoders.masked_norm import MaskedFrozenBatchNorm2d, ValidArea


class Padding(nn.Module):
    """What is left of a norm whose scale and shift are the convolution's: zeros at padding."""

    def __init__(self, area: ValidArea):
        super().__init__()
        self.area = area

    def forward(self, values: Tensor) -> Tensor:
        return self.area.clear(values)


@torch.no_grad()
def fold(resnet: nn.Module, area: ValidArea) -> None:
    """Fold every norm of one of torchvision's ResNets, in place."""
    for parent in list(resnet.modules()):
        for before, name in pairwise(list(parent._modules)):
            conv, norm = parent._modules[before], parent._modules[name]
            if isinstance(conv, nn.Conv2d) and _is_norm(norm):
                parent._modules[before] = _folded(conv, *_scale_and_shift(norm))
                parent._modules[name] = Padding(area)
    resnet.to(memory_format=torch.channels_last)


def _is_norm(module: nn.Module | None) -> bool:
    return isinstance(module, MaskedFrozenBatchNorm2d | nn.modules.batchnorm._BatchNorm)


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """C each: what a norm of either kind multiplies by and adds in evaluation."""
    scale_C = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale_C, norm.bias - norm.running_mean * scale_C


def _folded(conv: nn.Conv2d, scale_C: Tensor, shift_C: Tensor) -> nn.Conv2d:
    made = nn.utils.skip_init(
        nn.Conv2d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    made.weight.copy_(conv.weight * scale_C[:, None, None, None])
    made.bias.copy_(shift_C)
    return made.eval()
