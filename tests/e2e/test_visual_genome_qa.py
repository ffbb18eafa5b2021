"""VQA trained with Visual Genome's questions beside it: one override, another course, the same vocabulary and evaluation."""

import json
import logging

import pytest
from conftest import draw_image, make_vqa2, share, write_config
from test_mini import SHORT, SIZES
from unit.data.builders.test_visual_genome_qa import IMAGES, write
from unit.data.test_known_answers import PAIRS

from pixelbert_plugin.checkpoint.restore import read_content
from pixelbert_plugin.commands import data as data_cli
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.world import write_world

WITH = "datasets=[vqa2,visual_genome_qa]"
HALF = "training.dataset_weights={visual_genome_qa: 0.5}"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A tiny VQA 2.0 and Visual Genome with images; read only."""
    root = make_vqa2(tmp_path_factory.mktemp("both"))
    write(root, PAIRS)
    for image, folder, *_ in IMAGES:
        draw_image(root / f"visual_genome/{folder}/{image}.jpg", "red", image)
    return share(root)


def write_described(path, root, save_dir):
    """A YAML of VQA that describes the other data set too, as vqa2.yaml does."""
    config = write_config(path, root, save_dir)
    config.write_text(config.read_text().replace("includes:", "includes:\n- datasets/visual_genome_qa/defaults.yaml"))
    return config


def losses(folder) -> list[tuple]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(record["update"], record["samples"], record["loss"], record["grad_norm"]) for record in records]


def results(folder) -> dict:
    found = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in found.items() if name != "training_seconds"}


def vocabulary(folder) -> dict:
    return read_content(folder / "checkpoints/best", "x")["processors"]["answers"]


@pytest.fixture(scope="module")
def trained(both, tmp_path_factory):
    """Runs of six updates: of vqa2 alone; of a YAML that describes the other data set too; with its questions."""
    folder = tmp_path_factory.mktemp("trained")
    plain = write_config(folder / "plain.yaml", both, folder / "plain")
    described = write_described(folder / "described.yaml", both, folder / "described")
    short = ["training.max_updates=6", "training.evaluation_interval=6"]
    for config, options in ((plain, []), (described, []), (described, [WITH, HALF, f"env.save_dir={folder}/mixed"])):
        assert cli.main([f"config={config}", *short, *options]) == 0
    return folder


def test_where_it_is_described_and_not_asked_for_nothing_changes(trained):
    assert losses(trained / "plain") == losses(trained / "described") and len(losses(trained / "plain")) == 6
    assert results(trained / "plain") == results(trained / "described")


def test_vocabulary_evaluation_and_priors_are_vqas(trained):
    assert vocabulary(trained / "mixed") == vocabulary(trained / "plain")
    plain, mixed = results(trained / "plain"), results(trained / "mixed")
    assert plain.keys() == mixed.keys()
    for name in ("ceiling", "question_prior", "prefix_prior"):
        assert plain[f"val/vqa2/{name}"] == mixed[f"val/vqa2/{name}"]
    assert losses(trained / "plain") != losses(trained / "mixed")


def test_an_epoch_is_both_at_their_weights(both, tmp_path, capsys, caplog, monkeypatch):
    """36 questions of VQA's, and half of the four whose answer it knows: 38, in four updates of 8 and one of 6."""
    monkeypatch.setenv("COLUMNS", "200")  # no line of the overview is folded
    caplog.set_level(logging.INFO)
    config = write_described(tmp_path / "c.yaml", both, tmp_path / "run")
    epoch = ["training.max_updates=null", "training.max_epochs=1", "training.evaluation_interval=5"]
    assert cli.main([f"config={config}", WITH, HALF, *epoch]) == 0
    assert [samples for _, samples, *_ in losses(tmp_path / "run")] == [8, 16, 24, 32, 38]
    printed = capsys.readouterr().out
    assert "4 samples of 2 images" in printed and "an epoch is 38 samples" in printed
    (line,) = [message for message in caplog.messages if "have an answer of the vocabulary" in message]
    assert line == "train/visual_genome_qa: 4 of 7 questions have an answer of the vocabulary; the other 3 are left out"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and "genome" in record.getMessage()]


def test_a_resume_is_bit_exact(trained, tmp_path):
    whole = losses(trained / "mixed")
    options = [
        *(WITH, HALF, f"env.save_dir={tmp_path}/run", "training.max_updates=6", "training.evaluation_interval=6"),
        *("checkpoint.resume=true", f"checkpoint.resume_file={trained}/mixed/checkpoints/update_000004"),
    ]
    assert cli.main([f"config={trained}/described.yaml", *options]) == 0
    assert losses(tmp_path / "run") == whole[4:] and len(whole) == 6


def test_the_miniature_trains_on_it_by_one_override(tmp_path, capsys, monkeypatch, caplog):
    monkeypatch.setenv("COLUMNS", "500")
    world = tmp_path / "mini"
    write_world(WorldConfig(out=str(world), processes=1, **SIZES))
    common = ["config=projects/pixelbert/configs/mini/vqa2.yaml", f"env.data_dir={world}", "env.cache_dir=null"]
    common += ["processors.answers.params.min_occurrences=1", WITH]
    assert data_cli.main(["check", *common]) == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    assert "questions have one; training leaves out the others" in shown and "with a warning" not in shown
    sizes = ["training.batch_size=8", "training.micro_batch_size=4", f"env.save_dir={tmp_path}/run"]
    caplog.set_level(logging.INFO)
    assert cli.main([*common, *SHORT, *sizes]) == 0
    assert "questions have an answer of the vocabulary; the other" in caplog.text
    found = results(tmp_path / "run")
    assert {key.split("/")[1] for key in found} == {"vqa2"} and "minitest/vqa2/question_prior" in found
