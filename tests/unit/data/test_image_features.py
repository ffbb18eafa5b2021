"""A frozen encoder's features in the place of images: the same numbers wherever they come from."""

import copy
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import draw_image
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.data.image_features import ImageFeatures, padded
from pixelbert_plugin.data.images import BadImageError
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.reader import BatchReader
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import PixelFeatures
from unit.data.builders.test_vqa2 import builder

CPU = torch.device("cpu")


def make_model(seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    image_encoder = {"type": "resnet18", "params": {"max_pool": False, **options}}
    node = {
        "image_encoder": image_encoder,
        "text_encoder": {"type": "bert", "params": small},
        "freeze_image_encoder": True,
    }
    return registry.build(
        "model", "pixelbert", node, "model_config.pixelbert", vocab_size=200, pad_token_id=0, heads={"itm": 2}
    )


def make_features(folder, model=None, max_gb=1.0, short_edge=64, precision="fp32", device=CPU) -> ImageFeatures:
    processor = registry.build("processor", "image", {"short_edge": short_edge, "long_edge": 128}, "processors.image.params")
    numbers = registry.build("precision", precision, {}, "p", device=device)
    encoder = (model or make_model().to(device)).frozen_image_encoder
    return ImageFeatures(encoder, {}, processor, numbers, device, folder, max_gb)


def make_loader(root, features: ImageFeatures, workers: int = 0, on_bad_image: str = "error") -> Loader:
    mixture = Mixture.build({"vqa2": builder(root)}, "val")
    mixture.on_bad_image["vqa2"] = on_bad_image
    text = registry.build("processor", "bert_tokenizer", {"max_length": 8}, "t")
    text.fit(sample.text for sample in mixture)
    reader = BatchReader(mixture, text, features.processor, lambda batch, seeds: None, 1)
    return Loader(reader, features.device, workers, features=features)


def all_of(loader: Loader) -> list[PixelFeatures]:
    return [batch.features for batch in loader.evaluate(9)]


def same(one: list[PixelFeatures], other: list[PixelFeatures]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.pixels, b.pixels) and torch.equal(a.mask, b.mask) and a.grid == b.grid for a, b in pairs)


def kept(folder) -> list:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_features_are_the_encoders_of_each_image_alone_padded(tmp_path, vqa2_root):
    model = make_model().eval()
    loader = make_loader(vqa2_root, make_features(tmp_path, model))
    for batch in loader.evaluate(9):
        images = list(dict.fromkeys(sample.images[0] for sample in batch.samples))
        alone = [loader.reader.image([loader.reader.image.decode(path)], CPU) for path in images]
        encoded = [model.image_encoder(*each) for each in alone]
        rows, columns = (max(each.grid[axis] for each in encoded) for axis in (0, 1))
        assert batch.features.grid == (rows, columns) and len(batch.features.pixels) == len(images)
        for place, each in enumerate(encoded):
            values = batch.features.pixels[place].view(rows, columns, -1)
            mask = batch.features.mask[place].view(rows, columns)
            height, width = each.grid
            assert torch.equal(values[:height, :width].flatten(0, 1), each.pixels[0])
            assert mask[:height, :width].all() and mask.sum() == height * width
            assert not values[height:].any() and not values[:, width:].any()
    assert len(kept(tmp_path)) == 5  # images, of three questions each


@pytest.mark.parametrize("workers", [0, 1])
def test_kept_features_are_given_without_reading_an_image(tmp_path, vqa2_root, monkeypatch, workers):
    loader = make_loader(vqa2_root, make_features(tmp_path), workers)
    first = all_of(loader)
    assert [len(features.pixels) for features in first] == [3, 2]

    def fail(*_):
        raise AssertionError("decoded or computed")

    monkeypatch.setattr(loader.reader.image, "decode", fail)
    monkeypatch.setattr(loader.features.encoder, "forward", fail)
    assert same(all_of(loader), first)
    everything = loader.read_images([np.arange(len(loader.mixture))])
    assert same([batch.features for batch in everything], [whole(first)])


def whole(batches: list[PixelFeatures]) -> PixelFeatures:
    """Every batch's images as one batch, of images that stand in the split's order."""
    images = []
    for batch in batches:
        rows, columns = batch.grid
        for pixels, mask in zip(batch.pixels, batch.mask, strict=True):
            height, width = mask.view(rows, columns).any(1).sum(), mask.view(rows, columns).any(0).sum()
            images.append(pixels.view(rows, columns, -1)[:height, :width])
    return padded(images)


def test_a_batch_of_kept_and_new_features_is_the_same_to_the_last_bit(tmp_path, vqa2_root):
    kept_and_new_are_the_same(CPU, tmp_path, vqa2_root)


def kept_and_new_are_the_same(device, tmp_path, root):
    loader = make_loader(root, make_features(tmp_path, device=device))
    first = all_of(loader)
    assert {features.pixels.device.type for features in first} == {device.type}
    for path in kept(tmp_path)[::2]:
        path.unlink()
    assert same(all_of(loader), first) and len(kept(tmp_path)) == 5
    nothing_fits = make_loader(root, make_features(tmp_path / "full", max_gb=1e-6, device=device))
    assert same(all_of(nothing_fits), first) and not kept(tmp_path / "full")
    return first


def test_the_model_computes_with_them_what_it_does_with_images(tmp_path, vqa2_root):
    model = make_model().eval()
    loader = make_loader(vqa2_root, make_features(tmp_path, model))
    with_images = replace(loader, features=None)
    with_images.reader = copy.copy(loader.reader)
    with torch.no_grad():
        for kept_batch, batch in zip(loader.evaluate(9), with_images.evaluate(9), strict=True):
            assert batch.features is None and kept_batch.images == []
            found, expected = model(kept_batch), model(batch)
            torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
            assert found.grid == expected.grid and torch.equal(found.pixel_mask, expected.pixel_mask)


def test_padding_is_that_of_the_grids_of_the_latest_update(tmp_path, vqa2_root):
    loader = make_loader(vqa2_root, make_features(tmp_path))
    updates = loader.updates(0, 8, 4, 1)
    for _ in range(2):
        batches, _ = next(updates)
        masks = [batch.features.mask.float() for batch in loader.one_ahead(batches)]
        expected = 1 - sum(float(mask.mean()) for mask in masks) / len(masks)
        assert len(masks) == 2 and loader.mean_padding(batches)["image"] == pytest.approx(expected)
        texts = [float(batch.text_mask.float().mean()) for batch in batches]
        assert loader.mean_padding(batches)["text"] == pytest.approx(1 - sum(texts) / 2)


def test_damaged_features_are_computed_again_and_said_once(tmp_path, vqa2_root, caplog):
    loader = make_loader(vqa2_root, make_features(tmp_path))
    first = all_of(loader)
    damaged = kept(tmp_path)[1]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-8] + b"01234567")
    assert same(all_of(loader), first) and damaged.read_bytes() == content
    assert caplog.messages == [f"{damaged} is torn or altered; these features are computed again"]
    assert same(all_of(loader), first) and len(caplog.messages) == 1


def test_a_changed_image_has_other_features(tmp_path, own_vqa2_root):
    loader = make_loader(own_vqa2_root, make_features(tmp_path / "kept"))
    first = all_of(loader)
    image = loader.mixture[0].images[0]
    status = image.stat()
    draw_image(image, "blue", 77, (64, 48))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    again = all_of(loader)
    assert not same(again, first) and len(kept(tmp_path / "kept")) == 6
    assert same(again, all_of(make_loader(own_vqa2_root, make_features(tmp_path / "new"))))


def test_features_are_of_one_encoder_one_processor_one_precision(tmp_path):
    names = {make_features(tmp_path, **options).opened().weights for options in ({}, {"model": make_model()})}
    assert len(names) == 1
    others = [
        {"model": make_model(1)},
        {"model": make_model(max_pool=True)},
        {"model": make_model(norm="frozen")},
        {"short_edge": 32},
        {"precision": "bf16"},
    ]
    names |= {make_features(tmp_path, **options).opened().weights for options in others}
    assert len(names) == 6
    features = make_features(tmp_path)
    before = features.opened()
    assert features.opened() is before
    with torch.no_grad():
        features.encoder.resnet.bn1.running_mean[0] += 1  # as loading a checkpoint does
    assert features.opened().weights not in names


def test_threads_are_a_part_of_the_last_bit(tmp_path):
    features, threads = make_features(tmp_path), torch.get_num_threads()
    before = features.opened().weights
    try:
        torch.set_num_threads(threads + 1)
        assert features.opened().weights != before
    finally:
        torch.set_num_threads(threads)


def test_bf16_features_are_kept_as_they_are(tmp_path, vqa2_root):
    loader = make_loader(vqa2_root, make_features(tmp_path, precision="bf16"))
    first, again = all_of(loader), all_of(loader)
    assert same(first, again) and first[0].pixels.dtype == torch.bfloat16


def test_an_encoder_in_training_mode_is_not_trained(tmp_path, vqa2_root):
    model = make_model()
    model.image_encoder.train()
    statistics = {name: value.clone() for name, value in model.image_encoder.named_buffers()}
    all_of(make_loader(vqa2_root, make_features(tmp_path, model)))
    assert all(torch.equal(value, statistics[name]) for name, value in model.image_encoder.named_buffers())


def test_an_encoder_set_apart_computes_the_same_whatever_becomes_of_the_model(tmp_path, vqa2_root):
    model = make_model()
    features = make_features(tmp_path, model)
    expected = all_of(make_loader(vqa2_root, make_features(tmp_path / "other", copy.deepcopy(model))))
    features.set_apart()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same(all_of(make_loader(vqa2_root, features)), expected)


def test_an_unreadable_image_is_replaced_and_its_features_are_not_kept(tmp_path, own_vqa2_root):
    features = make_features(tmp_path / "kept")
    loader = make_loader(own_vqa2_root, features, on_bad_image="skip")
    bad = loader.mixture[0].images[0]
    bad.write_bytes(b"no image")
    weights = [batch.weights for batch in loader.evaluate(9)]
    assert sum(int(each.eq(0).sum()) for each in weights) == 3 and len(kept(tmp_path / "kept")) == 4
    first = all_of(loader)
    shutil.rmtree(tmp_path / "kept" / features.opened().weights)
    assert same(all_of(loader), first)  # the stand-in too, whether the others come as images or as features
    with pytest.raises(UserError, match="needed by sample"):
        all_of(make_loader(own_vqa2_root, features))


def test_features_of_an_encoder_that_pads_are_refused(tmp_path):
    class Pads(nn.Module):
        out_channels, portable = 4, lambda self: None

        def forward(self, images, sizes):
            return PixelFeatures(pixels=torch.zeros(1, 6, 4), mask=torch.arange(6)[None] < 5, grid=(2, 3))

    features = make_features(tmp_path, SimpleNamespace(frozen_image_encoder=Pads()))
    with pytest.raises(UserError, match=r"training.cache_features=true: Pads \(.*no part of an image.*cache_features=false"):
        features.compute(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_what_they_will_take_is_told(tmp_path, vqa2_root, caplog):
    features = make_features(tmp_path)
    images = make_loader(vqa2_root, features).mixture.parts["vqa2"].image_paths()
    first = features.compute(features.processor.decode(images[0]))
    told = features.estimate([vqa2_root / "missing.jpg", *images])
    gigabytes = 6 * first.numel() * 4 / 1e9
    assert told == (f"features of 6 images, about {gigabytes:.2g} GB: 0 are in {tmp_path / features.opened().weights}")
    features._of(features.processor.decode(images[0]), features.opened().name(images[0]))
    assert features.estimate(images).endswith(f"GB: 1 are in {tmp_path / features.opened().weights}")
    assert features.estimate([]) is None and not caplog.messages
    features.max_bytes, features._store = 10, None
    assert features.estimate(images) is None
    assert (
        "about" in caplog.text
        and "has room for 0 GB more: the others are computed each time (env.max_features_gb)" in caplog.text
    )


def test_an_unreadable_first_image_does_not_end_the_estimate(tmp_path, vqa2_root, monkeypatch):
    features = make_features(tmp_path)
    images = make_loader(vqa2_root, features).mixture.parts["vqa2"].image_paths()
    decode = features.processor.decode

    def first_is_bad(path):
        if path == images[0]:
            raise BadImageError("bad")
        return decode(path)

    monkeypatch.setattr(features.processor, "decode", first_is_bad)
    assert features.estimate(images).startswith("features of 5 images")
