"""env.overwrite deletes what a run wrote, and nothing else."""

import json
import math
import multiprocessing
import os

import pytest

from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.training import records
from pixelbert_plugin.training.run_folder import RunFolder
from unit.checkpoint.test_checkpoints import save

OURS = [
    "log.jsonl",
    "evaluations.jsonl",
    "results.json",
    "skipped_images_train.json",
    "tensorboard/events.out.tfevents.1.host.2.0",
    "predictions/val_vqa2.json",
    "predictions/test-dev_vqa2.safetensors",
    "scores/test_vqa2/block_00000.npy",
]
CONFIG = "{datasets: [vqa2], run_type: train, model: m, task: t, training: {}, checkpoint: {}, env: {}}\n"
THEIRS = [
    "notes.txt",
    "checkpoints/mine.bin",
    "checkpoints/update_notes/x",
    "checkpoints/update_000001/notes.txt",
    "checkpoints/update_000002/deep/state.json",
    "predictions/mine.json",
    "tensorboard/mine.png",
    "tensorboard/other/events.out.tfevents.1",
    "scores/mine.npy",
    "skipped_images_by_hand/list.json",
]


@pytest.fixture
def run(tmp_path):
    """A folder that holds a run of the data set vqa2."""
    folder = tmp_path / "run"
    for update in (1, 2):
        save(folder / "checkpoints", update, best=update == 1)
    for name in OURS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("ours")
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def test_a_run_alone_goes_with_its_folders(run):
    (run / "checkpoints/.update_000003.partial").mkdir()
    (run / "checkpoints/.update_000003.partial/__0_0.safetensors").write_bytes(b"half")
    (run / ".lock").write_text("{}")
    RunFolder(run).clear()
    assert [path.name for path in run.iterdir()] == [".lock"]


def test_what_others_put_there_stays(run):
    for name in THEIRS:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("theirs")
    RunFolder(run).clear()
    assert files(run) == set(THEIRS)
    assert all((run / name).read_text() == "theirs" for name in THEIRS)
    assert Checkpoints(run / "checkpoints", 2).newest() is None  # what is left is no checkpoint
    save(run / "checkpoints", 1)  # nor in its way
    kept = [path for path in (run / "checkpoints").rglob("notes.txt")]
    assert len(kept) == 1 and kept[0].read_text() == "theirs"


def test_links_are_not_followed(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    os.rename(run / "checkpoints", elsewhere)
    (run / "checkpoints").mkdir()
    (run / "checkpoints/update_000002").symlink_to(elsewhere / "update_000002")
    (run / "predictions/linked_vqa2.json").symlink_to(elsewhere / "update_000002/state.json")
    before = files(elsewhere)
    RunFolder(run).clear()
    assert files(elsewhere) == before and not (run / "predictions").exists()
    (run / "tensorboard").symlink_to(elsewhere)
    (run / "results.json").write_text("{}")
    with pytest.raises(UserError, match="tensorboard: is a symbolic link"):
        RunFolder(run).clear()
    assert files(elsewhere) == before and (run / "results.json").exists()


def test_a_recipe_is_not_taken_for_what_a_run_saved(run):
    RunFolder(run).require_own_config()
    for recipe in ("datasets: [vqa2]\n", "includes: [base.yaml]\n" + CONFIG.strip("{}\n").replace(", ", "\n"), "just: notes\n"):
        (run / "config.yaml").write_text(recipe)
        with pytest.raises(UserError, match=r"config\.yaml: was not written by a run, and would be replaced"):
            RunFolder(run).require_own_config()
    (run / "config.yaml").write_text("torn: [")  # a run's, damaged
    RunFolder(run).require_own_config()


@pytest.mark.parametrize("content", ["[]", "3", "{", "[" * 100_000])
def test_results_that_are_none_are_written_anew(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    assert json.loads(RunFolder(tmp_path).add_results({"a": 1}).read_text()) == {"a": 1}


@pytest.mark.parametrize("line", ["{", '{"update": "1"}', '{"loss": 1}', "3", "[" * 100_000])
def test_a_line_of_a_log_that_is_no_record_is_dropped(tmp_path, line):
    log = tmp_path / "log.jsonl"
    log.write_text(f'{{"update": 1}}\n{line}\n{{"update": 2}}\n{{"update": 3}}\n')
    records.cut(log, 2)
    assert log.read_text() == '{"update": 1}\n{"update": 2}\n'


def test_a_metric_that_is_nan_is_written_again_and_again(tmp_path):
    for _ in range(2):
        RunFolder(tmp_path).add_results({"val/a/accuracy": math.nan})
    assert math.isnan(json.loads((tmp_path / "results.json").read_text())["val/a/accuracy"])


def add_one_by_one(folder, name):
    for number in range(40):
        RunFolder(folder).add_results({f"{name}/{number}": number})


def test_two_evaluations_at_the_same_time_lose_no_results(tmp_path):
    """run_type=val beside run_type=test: each reads results.json, adds to it and writes it."""
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=add_one_by_one, args=(tmp_path, name)) for name in ("val", "test")]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert len(json.loads((tmp_path / "results.json").read_text())) == 80
