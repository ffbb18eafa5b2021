"""`pixelbert-data calibrate`: from a configuration to a file of weights, and what it refuses."""

import pytest
import torch
from safetensors.torch import load_file
from torchvision.transforms.v2.functional import resize

from pixelbert_plugin.commands import data
from pixelbert_plugin.data.images import read_image
from unit.encoders import test_cnn_formats as published


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    state = published.random_state(published.SOURCES["msra"])
    return state, published.write(tmp_path_factory.mktemp("weights") / "small", "caffe2", state)


def run(config, *arguments, encoder="test_small_resnet") -> int:
    return data.main(["calibrate", f"config={config}", f"model_config.pixelbert.image_encoder.type={encoder}", *arguments])


def test_it_measures_training_images_and_says_what_comes_next(tiny_config, weights, vqa2_root, tmp_path, capsys):
    state, path = weights
    out = tmp_path / "new/small.safetensors"
    arguments = [f"model_config.pixelbert.image_encoder.params.weights={path}", f"out={out}", "images=5"]
    assert run(tiny_config, *arguments) == 0
    assert capsys.readouterr().out.startswith(
        f"{out}: 20 norms with the statistics of 5 images, conventions of msra; train it with params.weights={out}"
    )
    encoder = published.build("msra", weights=str(out))
    assert published.difference(encoder, state, published.SOURCES["msra"]) < 1e-4
    # the first norm's mean by hand: of every 12 images' 5, resized to 64 by the paper's rule, BGR less the mean
    files = sorted((vqa2_root / "coco/train2014").iterdir())
    total, count = torch.zeros(64, dtype=torch.float64), 0
    for number in (0, 2, 4, 7, 9):
        image = read_image(files[number])
        scale = 64 / min(image.shape[1:])
        image = resize(image.float(), [round(size * scale) for size in image.shape[1:]], antialias=True)
        values = (image.flip(0) - torch.tensor(published.MEAN_BGR)[:, None, None])[None]
        values = torch.nn.functional.conv2d(values, state["stem.conv1.weight"], stride=2, padding=3)[0].double().flatten(1)
        total, count = total + values.sum(1), count + values.shape[1]
    torch.testing.assert_close(load_file(out)["bn1.running_mean"].double(), total / count, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "encoder", "message"),
    [
        (["out=a.safetensors"], "test_small_resnet", "image_encoder.params.weights: None is no file; name the one whose norms"),
        (["out=a.pth"], "test_small_resnet", "out: must be set, to a file that ends in .safetensors"),
        ([], "test_small_resnet", "out: must be set"),
        (["out=a.safetensors", "images=0"], "test_small_resnet", "images: 0: at least 1 image is measured"),
        (["out=a.safetensors", "images=some"], "test_small_resnet", "images"),
        (["out=a.safetensors"], "timm", "image_encoder.type: 'timm' is no ResNet of this package"),
    ],
)
def test_what_cannot_be_calibrated_is_told_in_one_line(tiny_config, capsys, arguments, encoder, message):
    assert run(tiny_config, *arguments, encoder=encoder) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_weights_with_statistics_need_none(tiny_config, tmp_path, capsys):
    path = published.write(tmp_path / "a", "torchvision", published.random_state(published.SOURCES["torchvision"]))
    arguments = [f"model_config.pixelbert.image_encoder.params.weights={path}", f"out={tmp_path / 'b.safetensors'}"]
    assert run(tiny_config, *arguments) == 2
    assert "has statistics already; its norms can be trained as they are" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()
