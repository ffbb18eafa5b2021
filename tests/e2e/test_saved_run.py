"""A saved run's configuration means that run: pre-train, fine-tune, export and test, each from save/…/config.yaml."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import write_config
from safetensors.torch import load_file

from pixelbert_plugin.checkpoint.restore import read_model
from pixelbert_plugin.commands import run as cli

ONCE = {"checkpoint": {"resume", "resume_file", "pretrained"}, "env": {"overwrite"}}


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def fails(capsys, *arguments) -> str:
    assert run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def chain(tmp_path_factory, vqa2_root) -> Path:
    """`first`, a run, and `second`, started from its weights; the folder that holds both."""
    folder = tmp_path_factory.mktemp("chain")
    config = write_config(folder / "c.yaml", vqa2_root, folder / "first")
    assert run(f"config={config}", "training.max_updates=2") == 0
    start = f"checkpoint.pretrained={folder / 'first/checkpoints/best'}"
    options = (start, f"env.save_dir={folder / 'second'}", "training.seed=2", "training.max_updates=4")
    assert run(f"config={folder / 'first/config.yaml'}", *options) == 0
    return folder


@pytest.fixture
def second(chain, tmp_path) -> Path:
    """A copy of the fine-tuned run that a test may change, in another place."""
    return shutil.copytree(chain / "second", tmp_path / "moved", symlinks=True)


def make_old(folder: Path, chain: Path) -> None:
    """Its configuration as an earlier version saved it, one-off switches and all."""
    file = folder / "config.yaml"
    values = yaml.safe_load(file.read_text())
    values["checkpoint"] |= {"resume": False, "resume_file": None, "pretrained": str(chain / "first/checkpoints/best")}
    values["env"]["overwrite"] = True
    file.write_text(yaml.safe_dump(values))


def test_what_was_asked_once_is_not_saved_and_where_it_started_is_on_record(chain):
    best = chain / "second/checkpoints/best"
    for file in (chain / "second/config.yaml", best / "config.yaml"):
        values = yaml.safe_load(file.read_text())
        assert not any(names & set(values[section]) for section, names in ONCE.items())
    source = {"key": "checkpoint.pretrained", "path": str(chain / "first/checkpoints/best"), "update": 2}
    assert json.loads((best / "state.json").read_text())["started_from"] == [source]
    assert json.loads((chain / "first/checkpoints/best/state.json").read_text())["started_from"] == []


@pytest.mark.parametrize("saved_by", ["this version", "an earlier version"])
def test_the_saved_run_exports_and_evaluates_its_own_weights(chain, second, tmp_path, monkeypatch, saved_by):
    if saved_by == "an earlier version":
        make_old(second, chain)
    monkeypatch.chdir(tmp_path)
    before = results(second)
    for file in (second / "config.yaml", second / "checkpoints/best/config.yaml"):
        target = tmp_path / f"{file.parent.name}.safetensors"
        assert run(f"config={file}", "--export", target) == 0
        exported, own, start = (
            load_file(target),
            read_model(second / "checkpoints/best"),
            read_model(chain / "first/checkpoints/best"),
        )
        assert exported.keys() == own.keys() and all(torch.equal(exported[name], own[name]) for name in own)
        assert not torch.equal(exported["heads.answers.layers.3.weight"], start["heads.answers.layers.3.weight"])
    assert run(f"config={second / 'config.yaml'}", "run_type=val") == 0  # its metrics are those after training
    assert results(second) == before
    assert run(f"config={second / 'config.yaml'}", "run_type=val", f"checkpoint.resume_file={target}", "env.save_dir=x") == 0
    assert results(tmp_path / "x")["val/vqa2/accuracy"] == before["val/vqa2/accuracy"]


def test_a_rerun_of_the_saved_config_deletes_nothing(chain, second, capsys, caplog):
    make_old(second, chain)
    files = {path: path.read_bytes() for path in second.rglob("*") if path.is_file() and path.name != ".lock"}
    assert "holds a run already" in fails(capsys, f"config={second / 'config.yaml'}")
    assert {path: path.read_bytes() for path in files} == files
    caplog.set_level("INFO")
    assert run(f"config={second / 'config.yaml'}", "checkpoint.resume=true", "training.max_updates=5") == 0
    assert "its checkpoint.pretrained=" in caplog.text and "was asked once" in caplog.text
    assert run(f"config={second / 'config.yaml'}", "run_type=val") == 0  # after a resume too
    assert len(json.loads((second / "checkpoints/update_000005/state.json").read_text())["started_from"]) == 1


def test_training_the_saved_config_anew_says_that_it_starts_from_random_weights(chain, tmp_path, caplog):
    options = (f"env.save_dir={tmp_path / 'again'}", "training.max_updates=1", "run_type=train")
    assert run(f"config={chain / 'second/config.yaml'}", *options) == 0
    assert "started from checkpoint.pretrained=" in caplog.text and "this one starts from random weights" in caplog.text


def test_weights_to_start_from_are_not_taken_for_those_of_a_run_that_has_trained(chain, second, capsys, tmp_path):
    """A recipe that names them trains with them, and evaluates what it trained; on the command line the two are told apart."""
    start = f"checkpoint.pretrained={chain / 'first/checkpoints/best'}"
    line = fails(capsys, f"config={second / 'config.yaml'}", "run_type=val", start)
    assert "holds a run that has trained on" in line and "checkpoint.resume_file" in line
    recipe = tmp_path / "recipe.yaml"
    values = yaml.safe_load((second / "config.yaml").read_text())
    values["checkpoint"]["pretrained"], values["env"]["save_dir"] = str(chain / "first/checkpoints/best"), str(second)
    values["checkpoint"]["resume"] = True  # as a job that is requeued has it
    recipe.write_text(yaml.safe_dump(values))
    before = results(second)
    assert run(f"config={recipe}", "run_type=val") == 0 and results(second) == before


@pytest.mark.parametrize("how", ["damaged", "link lost", "nothing linked"])
def test_the_best_checkpoint_is_the_one_used_or_refused_by_name(second, capsys, tmp_path, how):
    best, target = second / "checkpoints/best", tmp_path / "out.safetensors"
    chosen, others = best.resolve(), [path for path in (second / "checkpoints").glob("update_*") if path != best.resolve()]
    assert others
    export = (f"config={second / 'config.yaml'}", "--export", target)
    if how == "damaged":
        (chosen / "__0_0.safetensors").write_bytes((chosen / "__0_0.safetensors").read_bytes()[:-1])
        for command in (export, (export[0], "run_type=val")):
            line = fails(capsys, *command)
            assert f"{best}: not a whole checkpoint: __0_0.safetensors" in line and f"there is {others[0]}" in line
        assert not target.exists()
        return
    best.unlink()
    if how == "nothing linked":  # and a link that leads nowhere
        best.symlink_to("update_000099")
        assert f"{best}: not a whole checkpoint" in fails(capsys, *export)
    else:
        assert run(*export) == 0
        assert all(torch.equal(value, load_file(target)[name]) for name, value in read_model(chosen).items())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("model_config.pixelbert.text_encoder.params.num_hidden_layers=1", "tensors that the model has not, such as"),
        ("model_config.pixelbert.text_encoder.params.num_hidden_layers=3", "tensors missing, such as"),
        ("model_config.pixelbert.text_encoder.params.intermediate_size=32", "tensors of another shape, such as"),
        ("processors.answers.params.vocabulary={answers}", "processors.answers: the vocabulary that this config names is not"),
    ],
)
def test_evaluating_a_checkpoint_of_another_model_is_an_error(chain, capsys, tmp_path, change, part):
    (tmp_path / "answers.txt").write_text("yes\nno\n")
    option = change.format(answers=tmp_path / "answers.txt")
    best = f"checkpoint.resume_file={chain / 'second/checkpoints/best'}"
    line = fails(capsys, f"config={chain / 'second/config.yaml'}", "run_type=val", option, best, f"env.save_dir={tmp_path}/x")
    assert part in line and not (tmp_path / "x/results.json").exists()
