"""Batch norms with statistics from published ones without, so that they can be trained: measured on images.

Detection's files hold a norm as a scale s and a shift b, y = s·x + b. Training would normalise x by a batch's mean and
variance, which those never did. With x's mean μ and variance v over many images, scale s·√(v + ε) and shift b + s·μ are a batch
norm that computes the same y in evaluation, and nearly the same in training.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from pixelbert_plugin.checkpoint.weights import write_weights
from pixelbert_plugin.encoders.cnn_formats import BATCH_NORM_EPS, FORMAT_KEY, CnnWeights
from pixelbert_plugin.encoders.masked_norm import MaskedFrozenBatchNorm2d
from pixelbert_plugin.encoders.resnet import ResNetEncoder


class Moments:
    """Count, sum and sum of squares of what a norm is given, by channel, in float64."""

    def __init__(self, channels: int):
        self.count = 0
        self.sum_C = torch.zeros(channels, dtype=torch.float64)
        self.squares_C = torch.zeros(channels, dtype=torch.float64)

    def add(self, values_ICHW: Tensor) -> None:
        values = values_ICHW.detach().double()
        self.count += values.numel() // values.shape[1]
        self.sum_C += values.sum((0, 2, 3)).cpu()
        self.squares_C += values.square().sum((0, 2, 3)).cpu()

    @property
    def mean_C(self) -> Tensor:
        return self.sum_C / self.count

    @property
    def variance_C(self) -> Tensor:
        return (self.squares_C / self.count - self.mean_C.square()).clamp(min=0)


@torch.no_grad()
def measured_norms(encoder: ResNetEncoder, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Weight, bias and statistics of every norm under torchvision's names, float32.

    `encoder`: with `norm: frozen`. `images`: 1 3 H W float32 each, normalised and on the encoder's device; one at a time, so
    that no padding is measured. Raises ValueError where there is none.
    """
    norms = {name: module for name, module in encoder.resnet.named_modules() if isinstance(module, MaskedFrozenBatchNorm2d)}
    moments = {name: Moments(len(norm.weight)) for name, norm in norms.items()}
    hooks = [norm.register_forward_pre_hook(_adder(moments[name])) for name, norm in norms.items()]
    try:
        for image in images:
            encoder(image, torch.tensor([image.shape[-2:]]))
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[str, Tensor] = {}
    for name, norm in norms.items():
        if not moments[name].count:
            raise ValueError("no image to measure on")
        mean_C, variance_C = moments[name].mean_C, moments[name].variance_C
        scale_C, shift_C = (value.double().cpu() for value in norm.scale_and_shift())
        deviation_C = (variance_C + BATCH_NORM_EPS).sqrt()
        found |= {
            f"{name}.weight": (scale_C * deviation_C).float(),
            f"{name}.bias": (shift_C + scale_C * mean_C).float(),
            f"{name}.running_mean": mean_C.float(),
            f"{name}.running_var": variance_C.float(),
        }
    return found


def write(path: Path, weights: CnnWeights, norms: dict[str, Tensor], weights_format: str) -> None:
    """A .safetensors of a file's convolutions, as they are in it, with these norms; its metadata keeps the conventions."""
    write_weights(path, {**weights.tensors, **norms}, {FORMAT_KEY: weights_format})


def _adder(moments: Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments.add(inputs[0])

    return add
