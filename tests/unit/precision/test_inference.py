"""Weights cast once compute what autocast computes; norms are rounded once more."""

import copy

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.precision.inference import cast_weights


class Net(nn.Module):
    """Convolution, norms, an embedding that is an output layer too, and a weight of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.inner, self.norm = nn.Conv2d(3, 8, 3), nn.Linear(8, 16), nn.LayerNorm(16)
        self.words, self.output = nn.Embedding(10, 16), nn.Linear(16, 10)
        self.output.weight = self.words.weight
        self.own = nn.Parameter(torch.randn(16))

    def forward(self, images, ids):
        values = self.norm(self.inner(self.conv(images).mean((2, 3)))) + self.own + self.words(ids)
        return self.output(torch.relu(values))


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
@torch.no_grad()
def test_outputs_are_autocasts_with_rounded_norms_and_what_others_use_stays(name, dtype):
    precision = registry.build("precision", name, {}, "p", device=torch.device("cpu"))
    net, inputs = Net().eval(), (torch.randn(2, 3, 8, 8), torch.tensor([1, 7]))
    with torch.no_grad():  # in the type it is cast to, so that only the norm's output is rounded
        net.norm.weight.copy_(torch.randn(16).to(dtype))
        net.norm.bias.copy_(torch.randn(16).to(dtype))
    cast = copy.deepcopy(net)
    cast_weights(cast, precision.autocast)
    seen = []
    cast.norm.register_forward_hook(lambda module, given, output: seen.append(output))
    net.norm.register_forward_hook(lambda module, given, output: output.to(dtype))
    with precision.autocast():
        expected, found = net(*inputs), cast(*inputs)
    assert seen[0].dtype == found.dtype == dtype and torch.equal(found, expected)
    kinds = {key: value.dtype for key, value in cast.state_dict().items()}
    held = {f"{layer}.{part}" for layer in ("conv", "inner", "norm") for part in ("weight", "bias")} | {"output.bias"}
    assert {key for key, kind in kinds.items() if kind == dtype} >= held
    for key in ("words.weight", "output.weight", "own"):
        assert kinds[key] == torch.float32
