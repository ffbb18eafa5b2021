"""A saved configuration: where its run lies, what is left out of it, and its plugin's path."""

import shutil
from pathlib import Path

import pytest
import yaml

from pixelbert_plugin import config as configuration
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.config import saved
from pixelbert_plugin.mmf import translate
from pixelbert_plugin.registry import yaml_text
from unit.checkpoint.test_checkpoints import save

BASE = "datasets: [vqa2]\nenv: {data_dir: there, save_dir: save/x, user_dir: plugin.py}\n"
WHOLE = BASE + "run_type: train\nmodel: pixelbert\ntask: vqa\ntraining: {}\n"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A working folder with a plugin, a recipe and the folder of the run it made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.py").write_text("")
    (tmp_path / "recipe.yaml").write_text(BASE)
    config = configuration.load("recipe.yaml", ["env.overwrite=true", "checkpoint.pretrained=p", "checkpoint.max_to_keep=3"])
    run = tmp_path / "save/x"
    _, checkpoint = save(run / "checkpoints", 2, best=True)
    for folder in (run, checkpoint):
        (folder / "config.yaml").write_text(configuration.to_yaml(config, folder))
    return tmp_path


def test_what_was_asked_once_is_left_out(home):
    values = yaml.safe_load((home / "save/x/config.yaml").read_text())
    assert values["checkpoint"] == {"max_to_keep": 3} and "overwrite" not in values["env"]
    config = configuration.load("recipe.yaml", ["checkpoint.pretrained=p"])
    assert config.checkpoint.pretrained == "p" and config.saved_run is None  # a recipe keeps its own
    assert config.is_asked_now("checkpoint.pretrained") and not config.is_asked_now("env.save_dir")


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/best/config.yaml", "checkpoints/update_000002/config.yaml"])
def test_it_means_the_run_of_its_folder_from_everywhere(home, tmp_path_factory, monkeypatch, name):
    assert configuration.load(f"save/x/{name}").env.save_dir == "save/x"
    monkeypatch.chdir((home / "save/x" / name).parent)
    assert Path(configuration.load("config.yaml").env.save_dir).resolve() == home / "save/x"
    monkeypatch.chdir(home)
    moved = tmp_path_factory.mktemp("moved") / "y"
    shutil.move(home / "save/x", moved)
    assert configuration.load(f"{moved}/{name}").env.save_dir == str(moved)
    assert configuration.load(f"{moved}/{name}", ["env.save_dir=z"]).env.save_dir == "z"


def test_one_off_switches_of_an_earlier_version_are_dropped_and_told(home, caplog):
    caplog.set_level("INFO")
    file = home / "save/x/config.yaml"
    once = "checkpoint: {resume: true, pretrained: p, resume_file: null}\n"
    file.write_text(WHOLE.replace("save_dir: save/x", "overwrite: true") + once)
    config = configuration.load(str(file))
    assert not config.env.overwrite and not config.checkpoint.resume and config.checkpoint.pretrained is None
    assert "its checkpoint.pretrained=p was asked once" in caplog.text and "resume_file" not in caplog.text
    (home / "other.yaml").write_text("includes: [save/x/config.yaml]\n")
    assert not configuration.load("other.yaml").env.overwrite


def test_a_config_that_is_no_runs_is_left_as_it_is(home):
    """Of another name, in a folder of its own, or a recipe that lies beside a run."""
    for file, text in (("config.yaml", WHOLE), ("save/x/recipe.yaml", WHOLE), ("save/x/config.yaml", BASE)):
        (home / file).write_text(text + "checkpoint: {pretrained: p}\n")
        config = configuration.load(file)
        assert config.env.save_dir == "save/x" and config.checkpoint.pretrained == "p"


def test_a_checkpoint_copied_elsewhere_keeps_the_name_of_its_run(home):
    shutil.copytree(home / "save/x/checkpoints/update_000002", home / "copy")
    assert configuration.load("copy/config.yaml").env.save_dir == "save/x"


def test_the_plugin_is_found_where_all_was_moved_together(home, tmp_path_factory, monkeypatch, capsys):
    assert yaml.safe_load((home / "save/x/config.yaml").read_text())["env"]["user_dir"] == "../../plugin.py"
    moved = tmp_path_factory.mktemp("elsewhere") / "home"
    shutil.move(home, moved)
    monkeypatch.chdir(moved)
    for name in ("config.yaml", "checkpoints/best/config.yaml"):
        assert configuration.load(f"save/x/{name}").env.user_dir == str(moved / "plugin.py")
    (moved / "plugin.py").rename(moved / "renamed.py")
    assert cli.main(["config=save/x/config.yaml", "--print-config"]) == 2
    error = capsys.readouterr().err
    assert (
        f"env.user_dir='{moved}/plugin.py': no such file" in error and "env.user_dir=PATH" in error and error.count("\n") == 1
    )
    assert cli.main(["config=save/x/config.yaml", "env.user_dir=renamed.py", "--print-config"]) == 0


def test_a_plugin_outside_the_working_folder_keeps_its_whole_path(home, tmp_path_factory):
    plugin = tmp_path_factory.mktemp("plugins") / "p.py"
    values = {"env": {"user_dir": str(plugin)}}
    saved.portable(values, home / "save/x")
    assert values["env"]["user_dir"] == str(plugin)


def test_options_of_the_model_that_differ_are_named():
    """The number of heads, for one, shows in no tensor's shape."""
    values = {"model": "m", "model_config": {"m": {"text": {"heads": 4, "weights": None}, "pool": True, "new": 1}}}
    text = "model_config: {m: {text: {heads: 2, weights: w}, pool: true, gone: 1}}"
    assert saved.differences(text, values) == ["model_config.m.text.heads=4, but 2 when it was trained"]
    assert (
        saved.differences("", values)
        == saved.differences("model_config: {x: {}}", values)
        == saved.differences("[", values)
        == []
    )


def test_mmf_is_given_paths_with_the_home_folder_in_them(tmp_path, monkeypatch):
    """It reads no ~ itself, and our own configuration keeps it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(translate, "mmf_name", lambda kind, name: name)  # MMF is not here
    (tmp_path / "recipe.yaml").write_text("datasets: [vqa2]\ntraining: {max_updates: 1}\n")
    options = ["env.data_dir=~/d", "env.save_dir=~/s", "checkpoint.resume_file=~/p.pth"]
    config = configuration.complete(configuration.load("~/recipe.yaml", options))
    values = yaml.safe_load(yaml_text.dump(translate.to_mmf(config)))
    assert (values["env"]["data_dir"], values["env"]["save_dir"]) == (f"{tmp_path}/d", f"{tmp_path}/s")
    assert values["checkpoint"]["resume_file"] == f"{tmp_path}/p.pth"
