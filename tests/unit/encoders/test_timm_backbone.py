"""The encoder `timm`: timm's own features, each image as if alone."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError

MODELS = [  # strides that floor and strides that pad, squeeze and excite, channels last, one map of patches
    ("resnet18", {}),
    ("convnext_atto", {}),
    ("mobilenetv3_small_050", {}),
    ("swin_tiny_patch4_window7_224", {"strict_img_size": False}),
    ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
]


def build(model="resnet18", **params):
    torch.manual_seed(0)
    return registry.build("encoder", "timm", {"model": model, **params}, "image_encoder.params")


@torch.no_grad()
@pytest.mark.parametrize(("model", "options"), MODELS, ids=[name for name, _ in MODELS])
def test_a_whole_models_file_gives_its_features_and_comes_back(model, options, tmp_path, caplog):
    """Whatever names the wrapper of its feature maps has; and a file of those names too."""
    torch.manual_seed(1)
    whole = timm.create_model(model, **options).eval()
    save_file({name: value.contiguous() for name, value in whole.state_dict().items()}, tmp_path / "whole.safetensors")
    encoder = build(model, options=options, weights=str(tmp_path / "whole.safetensors")).eval()
    assert "left as initialised" not in caplog.text and encoder.normalization is None
    images = torch.randn(1, 3, 64, 96)
    _, maps = whole.forward_intermediates(images)
    expected = maps[-1]
    expected = expected if expected.shape[1] == encoder.out_channels else expected.permute(0, 3, 1, 2)
    own = encoder(images, torch.tensor([[64, 96]]))
    torch.testing.assert_close(own.pixels[0], expected[0].flatten(1).T, rtol=1e-3, atol=1e-4)
    again = build(model, options=options, weights=encoder.save_pretrained(tmp_path)["image_encoder"])
    state = encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(("model", "options"), MODELS, ids=[name for name, _ in MODELS])
def test_each_image_is_as_if_alone(model, options):
    encoder = build(model, options=options).eval()
    sizes = torch.tensor([[70, 100], [50, 64], [70, 100]])
    images = torch.zeros(3, 3, 70, 100)
    for image, (height, width) in zip(images, sizes.tolist(), strict=True):
        image[:, :height, :width] = torch.randn(3, height, width)
    together = encoder(images, sizes)
    rows, columns = together.grid
    assert together.pixels.shape == (3, rows * columns, encoder.out_channels) and together.mask.shape == (3, rows * columns)
    for index, (height, width) in enumerate(sizes.tolist()):
        alone = encoder(images[index : index + 1, :, :height, :width], sizes[index : index + 1])
        own_rows, own_columns = alone.grid
        place = torch.zeros(rows, columns, dtype=torch.bool)
        place[:own_rows, :own_columns] = True
        assert torch.equal(together.mask[index], place.flatten()) and alone.mask.all()
        torch.testing.assert_close(together.pixels[index][place.flatten()], alone.pixels[0], rtol=1e-4, atol=1e-5)
        assert not together.pixels[index][~place.flatten()].any()


def test_features_are_timms_own():
    encoder = build("resnet18", stage=-2).eval()
    torch.manual_seed(0)
    plain = timm.create_model("resnet18", features_only=True).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found, expected = encoder(images, torch.tensor([[64, 96]] * 2)), plain(images)[-2]
    assert found.grid == expected.shape[-2:] == (4, 6) and encoder.out_channels == 256
    torch.testing.assert_close(found.pixels, expected.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_frozen_norms_do_not_move_and_trainable_ones_do():
    images, sizes = torch.randn(2, 3, 64, 64), torch.tensor([[64, 64]] * 2)
    for norm, moves in (("frozen", False), ("trainable", True)):
        encoder = build(norm=norm).train()
        before = encoder.net.bn1.running_mean.clone()
        encoder(images, sizes).pixels.sum().backward()
        assert torch.equal(encoder.net.bn1.running_mean, before) is not moves
        assert (encoder.net.bn1.weight.grad is not None) is moves and encoder.net.conv1.weight.grad is not None


def test_weights_of_a_file_with_a_classifier_are_read(tmp_path, caplog):
    full = timm.create_model("resnet18", num_classes=7)
    save_file(full.state_dict(), tmp_path / "r18.safetensors")
    encoder = build(weights=str(tmp_path / "r18.safetensors"))
    torch.testing.assert_close(encoder.net.layer4[1].conv2.weight, full.layer4[1].conv2.weight)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": "resnt50"}, r"image_encoder.params.model: timm has no 'resnt50'; it has resnet50"),
        ({"stage": 9}, r"image_encoder.params.model: timm cannot make 'resnet18' with feature maps"),
        ({"weights": "/no/such.pth"}, r"image_encoder.params.weights: '/no/such.pth': no such file"),
        ({"options": {"depth": 3}}, r"image_encoder.params.model: timm cannot make 'resnet18'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(params, message):
    with pytest.raises(ConfigError, match=message):
        build(**{"model": "resnet18", **params})


def test_a_model_of_one_image_size_says_what_to_do():
    with pytest.raises(UserError, match=r"takes no images of \(64, 64\) pixels .*dynamic_img_size"):
        build("vit_tiny_patch16_224")(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
