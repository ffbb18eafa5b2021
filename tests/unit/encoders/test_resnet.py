"""Image encoders against torchvision's own ResNets, with and without padding."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from pixelbert_plugin import registry
from pixelbert_plugin.encoders.masked_norm import MaskedBatchNorm2d, MaskedFrozenBatchNorm2d, ValidArea
from pixelbert_plugin.encoders.resnet import ResNetEncoder, pool_pixels
from pixelbert_plugin.errors import UserError

SIZES = [(97, 131), (64, 64), (128, 70), (33, 159), (65, 129)]


def build(name="resnet18", **params):
    return registry.build("encoder", name, params, "encoder")


@torch.no_grad()
def lively(network: nn.Module) -> nn.Module:
    """Batch norms as after training: random scales and biases, and statistics that are those of the activations."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    draw = torch.Generator().manual_seed(0)
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=draw)
        norm.bias.uniform_(-0.5, 0.5, generator=draw)
        norm.momentum = 1.0
    images = torch.randn(4, 3, 128, 128, generator=draw)
    arguments = (images, torch.tensor([[128, 128]] * 4)) if isinstance(network, ResNetEncoder) else (images,)
    network.train()(*arguments)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def padded(images):
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, torch.tensor([image.shape[1:] for image in images])


@pytest.mark.parametrize(("ours", "theirs"), [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("resnet101", "resnet101")])
def test_features_equal_torchvisions(ours, theirs):
    encoder = lively(build(ours))
    reference = torchvision.models.get_model(theirs, weights=None).eval()
    reference.load_state_dict(encoder.resnet.state_dict(), strict=False)
    trunk = nn.Sequential(*list(reference.children())[:-2], nn.MaxPool2d(2, 2))
    images = torch.randn(2, 3, 128, 192)
    features = encoder(images, torch.tensor([[128, 192]] * 2))
    with torch.no_grad():
        expected = trunk(images)
    assert features.grid == (2, 3) and features.mask.all()
    torch.testing.assert_close(features.pixels, expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["trainable", "frozen"])
@pytest.mark.parametrize("max_pool", [True, False])
def test_each_image_of_a_padded_batch_is_encoded_as_if_alone(norm, max_pool):
    encoder = build(norm=norm, max_pool=max_pool).eval()
    encoder.load_state_dict(lively(build()).state_dict(), strict=norm == "trainable")
    images = [torch.randn(3, *size) for size in SIZES]
    with torch.no_grad():
        together = encoder(*padded(images))
        for row, image in enumerate(images):
            alone = encoder(*padded([image]))
            kept = together.pixels[row][together.mask[row]]
            assert kept.shape[0] == alone.grid[0] * alone.grid[1] == int(alone.mask.sum())
            torch.testing.assert_close(kept, alone.pixels[0], atol=1e-4, rtol=1e-4)
        assert (together.pixels[~together.mask] == 0).all()


def test_bottlenecks_too():
    encoder = lively(build("resnet50"))
    images = [torch.randn(3, *size) for size in SIZES[:3]]
    with torch.no_grad():
        together = encoder(*padded(images))
        for row, image in enumerate(images):
            torch.testing.assert_close(
                together.pixels[row][together.mask[row]], encoder(*padded([image])).pixels[0], atol=1e-3, rtol=0
            )  # features reach 30 here


def test_without_the_mask_padding_would_show():
    """The test above can fail: torchvision's own network gives the small image other features in the padded batch."""
    encoder = lively(build())
    trunk = torchvision.models.resnet18(weights=None).eval()
    trunk.load_state_dict(encoder.resnet.state_dict(), strict=False)
    trunk = nn.Sequential(*list(trunk.children())[:-2])
    images = [torch.randn(3, 97, 131), torch.randn(3, 64, 64)]
    with torch.no_grad():
        together, alone = trunk(padded(images)[0])[1, :, :2, :2], trunk(images[1][None])[0]
    assert (together - alone).abs().max() > 1e-2


def test_batch_statistics_in_training_leave_padding_out():
    images = [torch.randn(4, 5, 7), torch.randn(4, 3, 2)]
    area = ValidArea()
    sizes = torch.tensor([[5, 7], [3, 2]])
    area.set(sizes, (5, 7), torch.device("cpu"))
    norm = MaskedBatchNorm2d(4, area).train()
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    before = norm.running_var.clone()
    batch = torch.zeros(2, 4, 5, 7)
    batch[0], batch[1, :, :3, :2] = images[0], images[1]
    out = norm(batch)
    # the images' own pixels in one row, by torch's own batch norm
    pixels = torch.cat([image.flatten(1) for image in images], dim=1)
    reference = nn.BatchNorm1d(4)
    reference.load_state_dict({**norm.state_dict(), "running_mean": torch.zeros(4), "running_var": before})
    expected = reference(pixels.T).T
    torch.testing.assert_close(out[0].flatten(1), expected[:, :35], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out[1, :, :3, :2].flatten(1), expected[:, 35:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    assert (out[1, :, 3:] == 0).all() and (out[1, :, :, 2:] == 0).all()


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (5, 1), (5, 7), (4, 6)])
def test_pooling_floors_but_keeps_a_single_row_or_column(grid):
    values = torch.randn(2, 3, *grid)
    pooled = pool_pixels(values)
    assert pooled.shape[-2:] == tuple(max(1, size // 2) for size in grid)
    for row in range(pooled.shape[2]):
        for column in range(pooled.shape[3]):
            window = values[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(pooled[..., row, column], window.amax((2, 3)))


def test_papers_grids():
    """ResNet-50 at 800 × 1333 gives about 260 pixels, ResNeXt-152 at 600 × 1000 about 146 (ViLT, table 6)."""
    for size, about in (((800, 1333), 260), ((600, 1000), 146)):
        grid = [max(1, -(-edge // 32) // 2) for edge in size]
        assert abs(grid[0] * grid[1] - about) <= 8


def test_parameter_count_of_the_wider_backbones():
    """ViLT's table 6: 59.3 M for the paper's ResNeXt-152, which 32×4d fits (counted without the classifier)."""
    count = sum(parameter.numel() for parameter in build("resnext152_32x4d").parameters())
    assert abs(count / 1e6 - 57.9) < 1.0 and count < 59.3e6
    assert sum(parameter.numel() for parameter in build("resnext152_32x8d").parameters()) > 1.8 * count


def test_weights_from_a_file(tmp_path, caplog):
    source = lively(torchvision.models.resnet18(weights=None))
    torch.save(source.state_dict(), tmp_path / "plain.pth")
    loaded = build(weights=str(tmp_path / "plain.pth"))
    assert torch.equal(loaded.resnet.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert "not in the" not in caplog.text


@pytest.mark.parametrize(("number", "channels", "grid"), [(1, 64, (24, 32)), (2, 128, (12, 16)), (3, 256, (6, 8))])
def test_the_first_stages_alone_equal_torchvisions(tmp_path, caplog, number, channels, grid):
    """From a file of all four, whose other stages are said to be left out; and padding shows no more than with four."""
    source = lively(torchvision.models.resnet18(weights=None))
    torch.save(source.state_dict(), tmp_path / "plain.pth")
    with caplog.at_level("INFO"):
        encoder = build(weights=str(tmp_path / "plain.pth"), num_stages=number, max_pool=False, norm="frozen").eval()
    assert "left out as expected" in caplog.text and "not in the" not in caplog.text
    trunk = nn.Sequential(*list(source.children())[: 4 + number])
    images = [torch.randn(3, 96, 128), torch.randn(3, 33, 70)]
    with torch.no_grad():
        found = encoder(*padded(images))
        assert found.grid == grid and encoder.out_channels == channels == found.pixels.shape[2]
        for image, pixels, mask in zip(images, found.pixels, found.mask, strict=True):
            alone = trunk(image[None])[0].flatten(1).T
            torch.testing.assert_close(pixels[mask], alone, atol=1e-4, rtol=1e-4)
    assert len(encoder.shard_units()) == number and encoder.portable().num_stages == number
    assert encoder.save_pretrained(tmp_path)["image_encoder"] == (
        f"not written: torchvision's and timm's networks have four stages, this one {number}"
    )


def test_fewer_stages_than_one_or_more_than_four_are_refused():
    for number in (0, 5):
        with pytest.raises(UserError, match=r"num_stages"):
            build(num_stages=number)


def test_weights_by_torchvisions_enum_name_from_its_cache(tmp_path, monkeypatch):
    """The real loading code, with a file where torchvision would have downloaded one."""
    source = lively(torchvision.models.resnet18(weights=None))
    name = Path(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url).name
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(source.state_dict(), tmp_path / "hub/checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    loaded = build(weights="IMAGENET1K_V1")
    assert torch.equal(loaded.resnet.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_names_that_do_not_fit_are_reported(tmp_path, caplog):
    state = torchvision.models.resnet18(weights=None).state_dict()
    state["extra.weight"] = torch.zeros(3)
    state["layer1.0.conv1.weight"] = torch.zeros(1, 1)
    del state["layer2.0.bn1.bias"]
    torch.save({"state_dict": state}, tmp_path / "odd.pth")
    build(weights=str(tmp_path / "odd.pth"))
    assert "in the file but not in the model: extra.weight" in caplog.text
    assert "of another shape, not loaded: layer1.0.conv1.weight (1, 1)" in caplog.text
    assert "left as initialised, not in the file: layer2.0.bn1.bias" in caplog.text


def test_bad_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        build(weights="none.pth")
    with pytest.raises(UserError, match=r"torchvision has IMAGENET1K_V1"):
        build(weights="IMAGENET1K_V9")
    with pytest.raises(UserError, match="torchvision has no weights for this backbone"):
        build("resnext152_32x8d", weights="IMAGENET1K_V1")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match="not a readable file of weights"):
        build(weights=str(tmp_path / "torn.pth"))
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="none of its 1 tensors fits"):
        build(weights=str(tmp_path / "other.pth"))


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a readable file of weights"):
        build(weights=str(tmp_path / "evil.pth"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA it is allowed")
def test_sync_norm_needs_cuda():
    with pytest.raises(UserError, match="needs CUDA"):
        build(norm="sync")


def test_frozen_norm_has_no_trainable_parameters_and_torchvisions_names():
    encoder = build(norm="frozen")
    assert not any("bn" in name for name, _ in encoder.named_parameters())
    missing = encoder.resnet.load_state_dict(torchvision.models.resnet18(weights=None).state_dict(), strict=False)
    assert missing.missing_keys == []


@torch.no_grad()
def test_norms_of_a_padded_image_equal_torchs_of_the_image_alone():
    draw = torch.Generator().manual_seed(6)
    image = torch.randn(1, 5, 6, 9, generator=draw) * 3 + 2
    padded_image = nn.functional.pad(image, (0, 4, 0, 3), value=50.0)
    area = ValidArea()
    area.set(torch.tensor([[6, 9]]), (9, 13), torch.device("cpu"))
    ours, theirs = MaskedBatchNorm2d(5, area), nn.BatchNorm2d(5)
    for norm in (ours, theirs):
        norm.running_mean.fill_(0.5)
        norm.weight.copy_(torch.arange(5.0))
        norm.bias.copy_(torch.arange(5.0) - 2)
    for is_training in (True, True, False):
        found = ours.train(is_training)(padded_image)
        expected = theirs.train(is_training)(image)
        torch.testing.assert_close(found[..., :6, :9], expected, atol=1e-5, rtol=1e-5)
        assert not found[..., 6:, :].any() and not found[..., 9:].any()
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)
        assert ours.num_batches_tracked == theirs.num_batches_tracked
    fixed, reference = MaskedFrozenBatchNorm2d(5, area), FrozenBatchNorm2d(5)
    for norm in (fixed, reference):
        norm.running_mean.copy_(torch.arange(5.0))
        norm.running_var.copy_(torch.tensor([0.0, 1e-6, 1e-5, 1.0, 9.0]))  # where eps counts, and where not
        norm.weight.copy_(torch.arange(5.0) + 1)
        norm.bias.fill_(0.25)
    torch.testing.assert_close(fixed(padded_image)[..., :6, :9], reference(image), rtol=1e-5, atol=1e-4)


def test_resnext152_has_the_published_width():
    """32×8d (Xie et al. 2017): 32 groups of 8 channels in the first stage, doubled in each; detectron2's X-152-32x8d."""
    with torch.device("meta"):
        encoder = registry.build("encoder", "resnext152_32x8d", {}, "e")
    shapes = {name: tuple(value.shape) for name, value in encoder.resnet.named_parameters()}
    assert [shapes[f"layer{stage}.0.conv2.weight"] for stage in (1, 2, 3, 4)] == [
        (256, 8, 3, 3),
        (512, 16, 3, 3),
        (1024, 32, 3, 3),
        (2048, 64, 3, 3),
    ]
    assert [len(getattr(encoder.resnet, f"layer{stage}")) for stage in (1, 2, 3, 4)] == [3, 8, 36, 3]
    assert encoder.out_channels == 2048


@pytest.mark.parametrize("num_stages, max_pool", [(1, False), (2, False), (2, True), (3, True)])
def test_the_grid_looks_where_it_says(num_stages, max_pool):
    """The middle of the columns that a pixel of the grid depends on, found by where a NaN reaches it."""
    node = {"num_stages": num_stages, "max_pool": max_pool}
    encoder = registry.build("encoder", "resnet18", node, "image_encoder", use="image encoder").eval()
    first, step = encoder.grid_centres
    width, cell = 64 << num_stages, (8 if max_pool else 16)
    image, sizes = torch.ones(1, 3, 16, width), torch.tensor([[16, width]])

    @torch.no_grad()
    def depends(start: int, end: int) -> bool:
        spoiled = image.clone()
        spoiled[..., start:end] = torch.nan
        found = encoder(spoiled, sizes)
        return bool(found.pixels.unflatten(1, found.grid)[0, :, cell].isnan().any())

    low, high = 0, width  # the last column is in between: depends(low, width), not depends(high, width)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if depends(middle, width) else (low, middle)
    last, low, high = low, 0, width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if depends(0, middle) else (middle, high)
    assert 0 < low < last < width - 1
    assert (low + last + 1) / 2 == first + step * cell
