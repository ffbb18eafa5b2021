"""The miniature world's backbone: what it is shown, what it learns, and that our encoder takes its weights."""

import logging
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from pixelbert_plugin import registry
from pixelbert_plugin.commands import data as data_cli
from pixelbert_plugin.miniature import backbone
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.scenes import HELD_OUT, SEEN
from pixelbert_plugin.processors.image import ImageConfig


def test_figures_are_a_function_of_the_seed_and_of_no_held_out_pair():
    images, classes = backbone.figures(Random(3), 40)
    again, same = backbone.figures(Random(3), 40)
    assert torch.equal(images, again) and torch.equal(classes, same)
    assert images.shape == (40, 3, 32, 32) and len(SEEN) == 32 and not set(SEEN) & set(HELD_OUT)
    assert (list(backbone.MEAN), list(backbone.STD)) == (ImageConfig().mean, ImageConfig().std)
    rgb = (images * torch.tensor(backbone.STD)[:, None, None] + torch.tensor(backbone.MEAN)[:, None, None]) * 255
    assert rgb.min() > -0.5 and rgb.max() < 255.5
    for image, number in zip(rgb, classes.tolist(), strict=True):
        if SEEN[number][0] == "red":  # the reddest pixel is the figure's
            assert (image[0] - image[1:].amax(0)).max() > 80


def test_figures_of_a_larger_side_are_as_a_scene_that_is_enlarged():
    """Three times as wide: the middle pixel of each three is the drawn one, those between lie on the line."""
    drawn, _ = backbone.figures(Random(3), 4)
    large = backbone.enlarged(drawn, 96)
    assert large.shape == (4, 3, 96, 96) and torch.equal(backbone.enlarged(drawn, 32), drawn)
    assert torch.allclose(large[..., 1::3, 1::3], drawn, atol=1e-5)
    assert torch.allclose(large[..., 1::3, 2:-1:3], (2 * drawn[..., :-1] + drawn[..., 1:]) / 3, atol=1e-5)


def test_a_backbone_of_each_side_is_written_by_its_name(tmp_path, monkeypatch, capsys):
    from unit.miniature.test_world import SMALL

    monkeypatch.setattr(backbone, "NUM_TRAIN", 100)
    monkeypatch.setattr(backbone, "NUM_VAL", 10)
    sides, given = [], backbone.enlarged
    monkeypatch.setattr(backbone, "enlarged", lambda images, side: sides.append(side) or given(images, side))
    options = [f"{name}={value}" for name, value in (SMALL | {"backbone_updates": 1}).items()]
    make = ["make", f"out={tmp_path / 'world'}", "processes=1", *options]
    assert data_cli.main([*make, "backbone_sides=[32,40]"]) == 0
    files = ["resnet18.safetensors", "resnet18_40.safetensors"]
    assert sorted(path.name for path in (tmp_path / "world").glob("resnet18*")) == files and sides == [32, 32, 40, 40]
    assert all(file in capsys.readouterr().out for file in files[:1])
    first, other = (load_file(tmp_path / "world" / file) for file in files)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert data_cli.main([*make, "overwrite=true"]) == 0  # what an earlier make wrote is deleted
    assert [path.name for path in (tmp_path / "world").glob("resnet18*")] == files[:1]
    assert torch.equal(load_file(tmp_path / "world" / files[0])["conv1.weight"], first["conv1.weight"])


@pytest.mark.parametrize("sides", ["[]", "[31]", "[32,32]"])
def test_sides_that_cannot_be(tmp_path, sides, capsys):
    assert data_cli.main(["make", f"out={tmp_path / 'world'}", f"backbone_sides={sides}"]) == 2
    assert "backbone_sides" in capsys.readouterr().err and not (tmp_path / "world").exists()


@pytest.mark.slow
def test_it_learns_to_tell_figures_apart_and_fits_the_encoder(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(backbone, "NUM_TRAIN", 400)
    monkeypatch.setattr(backbone, "NUM_VAL", 200)
    monkeypatch.setattr(backbone, "BATCH", 64)
    before = torch.random.get_rng_state()
    path = tmp_path / "resnet18.safetensors"
    accuracy = backbone.write_backbone(path, WorldConfig(out="unused", backbone_updates=28))
    assert accuracy > 5 / len(SEEN)  # chance is 1 / 32
    assert torch.equal(torch.random.get_rng_state(), before)
    with caplog.at_level(logging.INFO):
        encoder = registry.build("encoder", "resnet18", {"weights": str(path)}, "image_encoder.params")
    assert "not loaded" not in caplog.text and "left as initialised" not in caplog.text
    weights = load_file(path)
    assert set(weights) == set(encoder.resnet.state_dict()) and torch.equal(
        weights["conv1.weight"], encoder.resnet.conv1.weight
    )


@pytest.mark.parametrize("updates", [0, 1])
def test_make_writes_it_where_it_is_asked_for_and_replaces_it(tmp_path, monkeypatch, updates):
    from unit.miniature.test_world import SMALL

    monkeypatch.setattr(backbone, "NUM_TRAIN", 100)
    monkeypatch.setattr(backbone, "NUM_VAL", 10)
    options = [f"{name}={value}" for name, value in (SMALL | {"backbone_updates": updates}).items()]
    for extra in ([], ["overwrite=true"])[: 1 + updates]:
        assert data_cli.main(["make", f"out={tmp_path / 'world'}", "processes=1", *options, *extra]) == 0
        assert (tmp_path / "world/resnet18.safetensors").exists() == bool(updates)
