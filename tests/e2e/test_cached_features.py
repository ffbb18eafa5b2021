"""Runs with a frozen CNN whose features are kept: the same losses whatever the cache holds, those without it up to rounding."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, write_config
from test_mini import SIZES

from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.errors import Stopped
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.world import write_world
from pixelbert_plugin.training.trainer import Trainer

FROZEN = "model_config.pixelbert.freeze_image_encoder=true"
CACHED = (FROZEN, "training.cache_features=true")
SHORT = ("training.max_updates=2", "training.checkpoint_interval=1", "evaluation.batch_size=15")


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def losses(folder: Path) -> list[tuple]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(record["update"], record["loss"], record["grad_norm"]) for record in records]


def results(folder: Path) -> dict:
    found = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in found.items() if name != "training_seconds"}


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "features").rglob("*") if path.is_file())


@pytest.fixture
def vqa(tmp_path, vqa2_root):
    """Runs VQA with options, saved in the folder of this name, which it gives."""

    def vqa(name: str, *options: str) -> Path:
        config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name)
        assert run(f"config={config}", f"env.cache_dir={tmp_path}/cache", *SHORT, *options) == 0
        return tmp_path / name

    return vqa


@pytest.mark.slow
def test_losses_are_those_of_a_run_without_whatever_the_cache_holds(vqa, tmp_path, capsys, caplog):
    without = vqa("without", FROZEN)
    new = vqa("new", *CACHED)
    files = kept(tmp_path / "cache")
    assert 8 + 5 <= len(files) <= 12 + 5  # 16 texts of 2 an image, what was tried before, and val
    assert "features of 17 images, about" in capsys.readouterr().out
    times = [path.stat().st_mtime_ns for path in files]
    warm = vqa("warm", *CACHED, "training.num_workers=1")
    assert [path.stat().st_mtime_ns for path in files] == times  # none was computed again
    for path in files[::3]:
        path.unlink()
    vqa("partial", *CACHED)
    for name in ("warm", "partial"):
        assert losses(tmp_path / name) == losses(new) and results(tmp_path / name) == results(new)
    vqa("full", *CACHED, "env.max_features_gb=0", f"env.cache_dir={tmp_path}/nothing")
    assert losses(tmp_path / "full") == losses(new) and not kept(tmp_path / "nothing")
    told = [message for message in caplog.messages if "features" in message]
    assert len(told) == 1 and "which has room for 0 GB more: the others are computed each time" in told[0]
    for (update, *found), (same, *expected) in zip(losses(new), losses(without), strict=True):
        assert update == same and found == pytest.approx(expected, rel=1e-4)
    assert results(warm).keys() == results(without).keys()


@pytest.mark.slow
def test_a_resumed_run_goes_on_to_the_last_bit(vqa, tmp_path, monkeypatch):
    unbroken = vqa("unbroken", *CACHED)
    original = Trainer._save

    def save_and_stop(trainer):
        original(trainer)
        raise Stopped("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save", save_and_stop)
        config = tmp_path / "unbroken.yaml"
        options = (f"env.cache_dir={tmp_path}/cache", *SHORT, *CACHED, f"env.save_dir={tmp_path}/broken")
        assert run(f"config={config}", *options) == 75
    assert len(losses(tmp_path / "broken")) == 1
    for path in kept(tmp_path / "cache")[::2]:
        path.unlink()
    assert run(f"config={config}", *options, "checkpoint.resume=true") == 0
    assert losses(tmp_path / "broken") == losses(unbroken) and results(tmp_path / "broken") == results(unbroken)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["training.cache_features=true"], "but the model 'pixelbert' trains its image encoder, or has none; freeze it"),
        ([*CACHED, "processors.image.params.horizontal_flip=0.5"], "processors.image ('image') may change an image whenever"),
        ([*CACHED, "processors.image.params.min_crop=0.5"], "leave out horizontal_flip, min_crop and color_jitter"),
        ([*CACHED, "processors.image.params.color_jitter=0.1"], "set training.cache_features=false"),
        ([*CACHED, "env.cache_dir=null"], "true needs a folder, and env.cache_dir is null"),
    ],
)
def test_what_cannot_be_kept_is_refused(tiny_config, tmp_path, capsys, options, told):
    assert run(f"config={tiny_config}", f"env.cache_dir={tmp_path}/cache", *options) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: training.cache_features: true") and told in error and "\n" not in error
    assert not kept(tmp_path / "cache")


def test_the_bound_is_checked(tiny_config, capsys):
    assert run(f"config={tiny_config}", "env.max_features_gb=-1") == 2
    assert "env.max_features_gb: -1.0 is invalid: must be at least 0" in capsys.readouterr().err


def test_an_evaluation_may_keep_features_though_training_augments(vqa, tmp_path, vqa2_root):
    vqa("trained", FROZEN, "processors.image.params.horizontal_flip=0.5")
    saved = f"config={tmp_path}/trained/config.yaml"
    before = results(tmp_path / "trained")
    assert run(saved, "run_type=val", "training.cache_features=true") == 0
    assert len(kept(tmp_path / "cache")) == 5
    after = results(tmp_path / "trained")
    assert after == pytest.approx(before, rel=1e-5)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("world") / "mini"
    write_world(WorldConfig(out=str(out), processes=1, **SIZES))
    return out


@pytest.mark.slow
def test_retrieval_trains_validates_and_scores_with_kept_features(world, tmp_path, monkeypatch):
    def retrieval(name: str, *options: str) -> Path:
        paths = [f"env.data_dir={world}", f"env.save_dir={tmp_path / name}", f"env.cache_dir={tmp_path}/cache"]
        short = ["training.max_updates=2", "training.max_epochs=null", "training.batch_size=8", "training.micro_batch_size=4"]
        short += ["training.num_workers=0", "training.log_interval=1", "evaluation.num_pictures=0", "evaluation.batch_size=64"]
        config = f"config={ROOT}/projects/pixelbert/configs/mini/flickr30k_retrieval.yaml"
        assert run(config, *paths, *short, *options) == 0
        return tmp_path / name

    without = retrieval("without")
    new = retrieval("new", "training.cache_features=true")
    assert 6 + 6 + 8 <= len(kept(tmp_path / "cache")) <= 6 + 6 + 16 + 4  # val, test, 16 samples of train, and what was tried
    with monkeypatch.context() as patched:
        patched.setattr("pixelbert_plugin.encoders.resnet.ResNetEncoder.forward", None)  # nothing is computed
        warm = retrieval("warm", "training.cache_features=true")
        assert losses(warm) == losses(new) and results(warm) == results(new)
        # kept blocks of scores are those of kept features
        assert run(f"config={new}/config.yaml", "run_type=test") == 0
    assert results(new).items() >= {name: value for name, value in results(warm).items() if "test/" in name}.items()
    assert [found[1:] for found in losses(new)] == [pytest.approx(found[1:], rel=1e-4) for found in losses(without)]
