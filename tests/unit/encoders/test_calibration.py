"""Norms that a file gives as scale and shift become batch norms: the same features, and training that starts from them."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelbert_plugin.encoders.calibration import Moments, measured_norms, write
from pixelbert_plugin.encoders.cnn_formats import FORMAT_KEY
from pixelbert_plugin.encoders.resnet import read_weights
from pixelbert_plugin.errors import UserError
from unit.encoders import test_cnn_formats as published


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Several of one size, so that they can be one batch without padding."""
    return torch.randn(6, 3, 64, 96, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    """MSRA's network of few blocks: its tensors, its file, and the calibrated one."""
    folder = tmp_path_factory.mktemp("weights")
    state = published.random_state(published.SOURCES["msra"])
    path = published.write(folder / "small", "caffe2", state)
    encoder = published.build("msra", weights=str(path), norm="frozen")
    write(folder / "calibrated.safetensors", read_weights(path), measured_norms(encoder, images.split(1)), "msra")
    return state, path, folder / "calibrated.safetensors"


def test_moments_are_those_of_all_values_of_a_channel():
    values = torch.randn(5, 3, 7, 4, generator=torch.Generator().manual_seed(0)) * 3 + 100
    moments = Moments(3)
    for part in values.split([1, 3, 1]):
        moments.add(part)
    exact = values.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean_C, exact.mean(1))
    torch.testing.assert_close(moments.variance_C, exact.var(1, correction=0))


def test_features_stay_the_sources_and_can_be_trained(files):
    state, _, path = files
    encoder = published.build("msra", weights=str(path), norm="trainable")
    assert encoder.stride_in_1x1 and published.difference(encoder, state, published.SOURCES["msra"]) < 1e-4
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    frozen = published.build("msra", weights=str(path), norm="frozen")
    assert published.difference(frozen, state, published.SOURCES["msra"]) < 1e-4


@torch.no_grad()
def test_a_training_batch_of_the_measured_images_is_normalised_as_before(files, images):
    """All of them in one batch have the very statistics that were measured; with those of nothing, features are others."""
    _, path, calibrated = files
    sizes = torch.tensor([[64, 96]]).expand(6, 2)
    before = published.build("msra", weights=str(path), norm="frozen")(images, sizes).pixels
    after = published.build("msra", weights=str(calibrated), norm="trainable").train()
    torch.testing.assert_close(after(images, sizes).pixels, before, rtol=1e-3, atol=1e-3 * float(before.max()))
    naive = published.build("msra", norm="trainable").train()
    naive.stride_in_1x1 = True
    naive._move_strides()
    naive.load_state_dict(published.build("msra", weights=str(path), norm="frozen").state_dict(), strict=False)
    assert float((naive(images, sizes).pixels - before).abs().max() / before.max()) > 0.1


def test_the_file_keeps_its_conventions_and_says_them(files, tmp_path):
    _, path, calibrated = files
    convolutions = read_weights(path).tensors
    held = load_file(calibrated)
    assert torch.equal(held["conv1.weight"], convolutions["conv1.weight"])  # not yet for our input
    with pytest.raises(UserError, match=r"weights_format: 'torchvision', but '.*' says that it is 'msra'; leave it"):
        published.build("msra", weights=str(calibrated), weights_format="torchvision")
    with pytest.raises(UserError, match=r"stride_in_1x1: False, but '.*' is msra's"):
        published.build("msra", weights=str(calibrated), stride_in_1x1=False)
    save_file(held, tmp_path / "other.safetensors", {FORMAT_KEY: "caffe3"})
    with pytest.raises(UserError, match=r"says that its format is 'caffe3'; it has torchvision, msra, caffe2, caffe2_std"):
        published.build("msra", weights=str(tmp_path / "other.safetensors"))


def test_no_image_is_refused(files):
    encoder = published.build("msra", weights=str(files[1]), norm="frozen")
    with pytest.raises(ValueError, match="no image to measure on"):
        measured_norms(encoder, [])
