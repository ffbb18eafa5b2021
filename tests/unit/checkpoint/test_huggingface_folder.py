"""A folder of transformers' that is damaged or another's is one line; what is in it is read without transformers."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, damage
from native_models import native

from pixelbert_plugin import UserError
from pixelbert_plugin.checkpoint import huggingface_folder, restore


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from pixelbert_plugin.huggingface import write

    root = tmp_path_factory.mktemp("made")
    return write(native("vqa", root), root / "hf", "")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "hf")


def test_it_starts_a_training_and_stands_for_a_checkpoint(folder):
    content = restore.read_content(folder, "checkpoint.pretrained")
    assert content["state"]["update"] == 0 and content["portable"].keys() == {"model", "image", "text", "answers"}
    weights = restore.read_model(folder)
    assert "heads.answers.layers.3.weight" in weights and not any(name.startswith("pixelbert.") for name in weights)


@pytest.mark.slow
def test_reading_it_imports_no_transformers(folder):
    code = (
        "import sys; from pathlib import Path; from pixelbert_plugin.checkpoint import huggingface_folder as f; "
        f"p = Path({str(folder)!r}); assert f.is_one(p); f.read_content(p, 'path'); f.read_weights(p); "
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "No such file"),
        (lambda folder: (folder / "processor_config.json").unlink(), "holds no processor_config.json with an image_processor"),
        (lambda folder: (folder / "tokenizer.json").write_text("[1]"), "tokenizer.json is no mapping"),
        (lambda folder: damage(folder / "config.json", lambda c: c.pop("model_options")), "KeyError"),
        (lambda folder: damage(folder / "config.json", lambda c: c.update(task=None)), "config.json names no task"),
        (lambda folder: damage(folder / "config.json", lambda c: c.update(run=[1])), "AttributeError"),
        (lambda folder: damage(folder / "config.json", lambda c: c["id2label"].pop("1")), "KeyError"),
    ],
)
def test_a_damaged_one_is_one_line(folder, change, message):
    change(folder)
    with pytest.raises(UserError, match=r"path='.*': not a folder of pixelbert_plugin\.huggingface \(.*" + message):
        restore.read_content(folder, "path")


def test_weights_that_are_missing_or_damaged_are_one_line(folder):
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        restore.read_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        restore.read_model(folder)


def test_another_models_folder_is_none(tmp_path):
    assert not huggingface_folder.is_one(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert not huggingface_folder.is_one(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not huggingface_folder.is_one(tmp_path)
    with pytest.raises(UserError, match="not a whole checkpoint"):
        restore.read_content(tmp_path, "path")
