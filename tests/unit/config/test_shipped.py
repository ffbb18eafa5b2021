"""The shipped configurations: named, described, and copied so that a copy means what the original means."""

from pathlib import Path

import pytest
from conftest import ROOT

from pixelbert_plugin import config as configuration
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.config import shipped
from pixelbert_plugin.errors import UserError


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", sorted(shipped.configurations()))
def test_a_copy_anywhere_means_what_the_original_means(path, empty):
    shipped.copy(shipped.short_name(path))
    (copied,) = empty.iterdir()
    original, copy = configuration.load(path), configuration.load(copied.name)
    assert configuration.leaves(copy) | {"env.save_dir": ""} == configuration.leaves(original) | {"env.save_dir": ""}
    assert copy.env.save_dir in (original.env.save_dir, f"save/{copied.stem}")


def test_a_copy_differs_only_in_its_paths_and_in_where_it_is_from(empty):
    shipped.copy("easy_vqa")
    source = (ROOT / "projects/easy_vqa/configs/easy_vqa.yaml").read_text().splitlines()
    first, *lines = (empty / "easy_vqa.yaml").read_text().splitlines()
    assert first.startswith("# A copy of projects/easy_vqa/configs/easy_vqa.yaml")
    changed = [(old, new) for old, new in zip(source, lines, strict=True) if old != new]
    comment = "  # where easy_vqa.py registers the data set"
    assert changed == [(f"  user_dir: ..{comment}", f"  user_dir: projects/easy_vqa{comment}")]


def test_a_copy_named_by_path_or_project_and_edited(empty):
    shipped.copy("projects/pixelbert/configs/mini/vqa2.yaml")
    shipped.copy("pixelbert/vqa2")
    assert sorted(path.name for path in empty.iterdir()) == ["mini_vqa2.yaml", "vqa2.yaml"]
    with (empty / "vqa2.yaml").open("a") as file:
        file.write("env: {data_dir: elsewhere}\n")
    assert configuration.load("vqa2.yaml").env.data_dir == "elsewhere"


def test_no_file_is_overwritten(empty, capsys):
    (empty / "vqa2.yaml").write_text("mine: 1\n")
    assert cli.main(["--copy-config", "vqa2"]) == 2
    assert capsys.readouterr().err == (
        "error: --copy-config vqa2: vqa2.yaml is there already; move it away, or work in another folder\n"
    )
    assert (empty / "vqa2.yaml").read_text() == "mine: 1\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["vqa"], "error: --copy-config 'vqa': no such configuration; did you mean vqa2? (known: coco_retrieval,"),
        (["mini/nlvr"], "error: --copy-config 'mini/nlvr': no such configuration; did you mean mini/nlvr2? ("),
        (["base"], "error: --copy-config 'base': no such configuration"),  # only what can be run
        (["vqa2", "training.seed=3"], "error: 'training.seed=3': --copy-config takes NAME alone"),
    ],
)
def test_a_wrong_name_is_one_line_with_near_spellings(arguments, told, empty, capsys):
    assert cli.main(["--copy-config", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(told) and error.count("\n") == 1, error
    assert not list(empty.iterdir())


def test_a_name_of_two_projects_is_ambiguous():
    paths = ["projects/a/configs/vqa2.yaml", "projects/b/configs/vqa2.yaml", "projects/b/configs/mini/vqa2.yaml"]
    with pytest.raises(UserError, match=r"--copy-config vqa2: is ambiguous; give a/vqa2 or b/vqa2$"):
        shipped._chosen("vqa2", paths)
    assert shipped._chosen("b/vqa2", paths) == paths[1] and shipped._chosen("mini/vqa2", paths) == paths[2]


def test_a_file_beside_the_including_one_goes_before_a_shipped_one(empty):
    (empty / "projects/pixelbert/configs").mkdir(parents=True)
    own = "datasets: [vqa2]\ntraining: {seed: 77}\n"
    (empty / "projects/pixelbert/configs/vqa2.yaml").write_text(own)
    (empty / "top.yaml").write_text("includes: [projects/pixelbert/configs/vqa2.yaml]\n")
    assert configuration.load("top.yaml").training.seed == 77


def test_only_shipped_folders_are_looked_up_in_the_package(empty):
    """A module's name beside the package's code, or a file of another package, is never taken for an include."""
    (empty / "top.yaml").write_text("includes: [pyproject.toml]\n")
    with pytest.raises(UserError, match=r"includes 'pyproject.toml': no such file"):
        configuration.load("top.yaml")
