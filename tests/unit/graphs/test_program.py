"""A traced model computes what the model does, at sizes that it was not traced with."""

import json

import pytest
import torch
from native_models import SIZES, native, native_logits
from torch import nn
from torch.export import Dim

from pixelbert_plugin import UserError
from pixelbert_plugin.encoders.masked_norm import MaskedBatchNorm2d, MaskedFrozenBatchNorm2d, ValidArea
from pixelbert_plugin.graphs import write
from pixelbert_plugin.graphs.program import example, least_side, trace
from pixelbert_plugin.models.inputs import sizes_of


class Stem(nn.Module):
    """What a ResNet does with padding, in two layers."""

    def __init__(self, norm):
        super().__init__()
        self.area = ValidArea()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 7, stride=2, padding=3), nn.Conv2d(4, 4, 3, stride=2, padding=1)])
        self.norms = nn.ModuleList([norm(4, self.area) for _ in range(2)])

    def forward(self, pixel_values, pixel_mask):
        self.area.set(sizes_of(pixel_values, pixel_mask), tuple(pixel_values.shape[-2:]), pixel_values.device)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pixel_values = norm(conv(pixel_values)).relu()
        return pixel_values


@pytest.mark.skipif(torch.__version__ < "2.14", reason="an older torch.export takes no module that keeps what it is given")
@torch.no_grad()
@pytest.mark.parametrize("norm", [MaskedBatchNorm2d, pytest.param(MaskedFrozenBatchNorm2d, marks=pytest.mark.slow)])
def test_padding_stays_nothing_in_a_traced_norm(norm):
    stem = Stem(norm).eval()
    for layer in stem.norms:
        layer.bias.fill_(0.5)  # which padding must not have
        layer.running_var.uniform_(0.5, 1.5)

    def inputs(images, height, width):
        mask = torch.ones(images, height, width, dtype=torch.int64)
        mask[0, height // 2 :] = 0
        mask[-1, :, width // 3 :] = 0
        return torch.randn(images, 3, height, width) * mask[:, None], mask

    dims = {0: Dim("images"), 2: Dim("height", min=9), 3: Dim("width", min=9)}
    shapes = {"pixel_values": dims, "pixel_mask": {place - (place > 0): dim for place, dim in dims.items()}}
    traced = torch.export.export(stem, inputs(3, 30, 41), dynamic_shapes=shapes, strict=False).module()
    for sizes in ((1, 9, 10), (2, 33, 32), (4, 64, 17)):
        given = inputs(*sizes)
        expected = stem(*(value.clone() for value in given))
        torch.testing.assert_close(traced(*given), expected, rtol=1e-5, atol=1e-6)
        assert expected[0, :, 0, 0].any() and not expected[-1, :, :, -1].any()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    "task, changes",
    [
        ("vqa", {}),
        ("nlvr2", {"image_encoder": {"type": "resnet18", "params": {"norm": "frozen"}}, "pooler": True}),
        ("retrieval", {"image_encoder": {"type": "resnet50"}, "position_embedding": "2d"}),
        (
            "pretrain",
            {"projection": "conv3x3", "position_embedding": "2d", "pixel_layer_norm": True, "num_sampled_pixels": 3},
        ),
    ],
)
def test_a_traced_model_agrees_at_other_sizes(task, changes, tmp_path):
    loaded = native(task, tmp_path, model=changes, **({"image_answers_weight": 0.5} if task == "vqa" else {}))
    file = write(loaded, tmp_path / "model.pt2", "pt2")
    program = torch.export.load(file).module()
    for texts, tokens, height, width in SIZES:
        inputs = example(loaded, texts, tokens, *(max(side, least_side(loaded)) for side in (height, width)))
        found, expected = program(*inputs), native_logits(loaded, *inputs)
        assert found.keys() == expected.keys()
        for head, logits in expected.items():
            torch.testing.assert_close(found[head], logits, rtol=0, atol=1e-4)
    options = json.loads((tmp_path / "model.json").read_text())
    assert (
        options["outputs"] == list(expected)
        and options["task"] == task
        and options["least_side"] == {"vqa": 33, "nlvr2": 97, "retrieval": 97, "pretrain": 97}[task]
    )


@pytest.mark.slow
def test_an_encoder_that_cannot_be_traced_is_one_line(tmp_path):
    """timm's groups images by their sizes, which are numbers in a tensor."""
    pytest.importorskip("timm")
    timm = {"type": "timm", "params": {"model": "resnet10t"}}
    loaded = native("vqa", tmp_path, model={"image_encoder": timm})
    with pytest.raises(
        UserError, match=r"--format pt2: torch\.export cannot trace this model, with the image encoder 'timm' \("
    ):
        trace(loaded, "--format pt2")
