"""Norms folded into convolutions: the same features for every kind of norm, block and padding."""

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.encoders.folding import Padding
from pixelbert_plugin.encoders.masked_norm import MaskedFrozenBatchNorm2d
from unit.encoders.test_resnet import lively, padded


@torch.no_grad()
@pytest.mark.parametrize("norm", ["trainable", "frozen"])
@pytest.mark.parametrize(("name", "options"), [("resnet18", {}), ("resnet50", {}), ("resnet50", {"stride_in_1x1": True})])
def test_features_are_the_same(name, options, norm):
    torch.manual_seed(0)
    encoder = registry.build("encoder", name, {"norm": norm, **options}, "e").eval()
    lively(encoder)
    for module in encoder.modules():
        if isinstance(module, MaskedFrozenBatchNorm2d):  # which `lively` leaves
            for values in (module.weight, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias, module.running_mean):
                values.uniform_(-0.5, 0.5)
    images, sizes = padded([torch.randn(3, 130, 190), torch.randn(3, 97, 160)])
    if norm == "trainable":  # whose small variances would make much of float32's rounding
        encoder, images = encoder.double(), images.double()
    before = encoder(images, sizes)
    encoder.prepare_inference()
    after = encoder(images, sizes)
    assert torch.equal(before.mask, after.mask) and float(before.pixels.std()) > 0
    nearly = 1e-10 if norm == "trainable" else 1e-5
    torch.testing.assert_close(after.pixels, before.pixels, rtol=nearly, atol=nearly * float(before.pixels.abs().max()))
    assert not after.pixels[~after.mask].any()
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == sum(isinstance(module, Padding) for module in encoder.modules())
    assert all(conv.bias is not None for conv in convolutions)
