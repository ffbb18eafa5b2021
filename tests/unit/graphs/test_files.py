"""The files of an exported graph: what is refused, and that ONNX Runtime computes the same."""

import importlib.util
import json

import numpy as np
import pytest
from native_models import SIZES, native, native_logits

from pixelbert_plugin import UserError
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.graphs import files, write
from pixelbert_plugin.graphs.program import INPUTS, example, least_side

MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
with_onnx = pytest.mark.skipif(bool(MISSING), reason=f"pip install 'pixelbert_plugin[export]': {', '.join(MISSING)}")


@pytest.mark.slow
@with_onnx
@pytest.mark.parametrize("task", ["vqa", "nlvr2", "retrieval", "pretrain"])
def test_onnx_runtime_agrees_at_other_sizes(task, tmp_path):
    import onnxruntime

    loaded = native(task, tmp_path)
    file = write(loaded, tmp_path / "model.onnx", "onnx")
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model.json", "model.onnx"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(INPUTS)
    for texts, tokens, height, width in SIZES:
        inputs = example(loaded, texts, tokens, *(max(side, least_side(loaded)) for side in (height, width)))
        expected = native_logits(loaded, *inputs)
        found = session.run(list(expected), {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)})
        for logits, wanted in zip(found, expected.values(), strict=True):
            np.testing.assert_allclose(logits, wanted.numpy(), rtol=0, atol=1e-4)


def test_options_are_enough_to_make_the_inputs(tmp_path):
    """The tokenizer of the package tokenizers, and the numbers of the image processor."""
    from tokenizers import Tokenizer

    loaded = native("vqa", tmp_path)
    options = json.loads(json.dumps(files.options(loaded, ["answers"])))
    text = "what color is the disc?"
    assert Tokenizer.from_str(json.dumps(options["text"]["tokenizer"])).encode(text).ids == loaded.processors["text"](text)[0]
    assert options["text"]["max_length"] == 12 and options["image"]["short_edge"] == 64
    assert options["answers"] == loaded.processors["answers"].spellings and options["inputs"] == list(INPUTS)


@pytest.mark.parametrize(
    "name, form, message",
    [
        ("model.onnx", "pt2", r"--export '.*model\.onnx': must end in \.pt2"),
        ("taken.pt2", "pt2", r"--export '.*taken\.pt2': taken\.pt2 is there already; remove it, or choose another name"),
        ("beside.pt2", "pt2", r"--export '.*beside\.pt2': beside\.json is there already"),
    ],
)
def test_names_that_do_not_do_are_one_line(name, form, message, tmp_path):
    for taken in ("taken.pt2", "beside.json"):
        (tmp_path / taken).write_text("mine")
    with pytest.raises(UserError, match=message):
        write(None, tmp_path / name, form)  # before the model is looked at
    assert (tmp_path / "taken.pt2").read_text() == "mine"


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PACKAGES", {"onnx": ("no_such_onnx",)})
    with pytest.raises(
        UserError, match=r"--format onnx: needs the package no_such_onnx; pip install 'pixelbert_plugin\[export\]'"
    ):
        write(None, tmp_path / "model.onnx", "onnx")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "trace", lambda *_: None)
    monkeypatch.setattr(files, "_write_pt2", fail)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write(None, tmp_path / "out/model.pt2", "pt2")
    assert not list((tmp_path / "out").iterdir())


def test_the_command_lists_its_formats(tmp_path, capsys):
    config = "config=projects/pixelbert/configs/vqa2.yaml"
    assert cli.main([config, "--export", str(tmp_path / "x"), "--format", "torchscript"]) == 2
    told = capsys.readouterr().err
    assert (
        "--format" in told
        and all(name in told for name in ("safetensors", "hf", "pt2", "onnx"))
        and len(told.splitlines()) == 1
    )
    assert cli.main([config, "--format", "hf"]) == 2
    assert "--format hf: is of --export PATH, which is not given" in capsys.readouterr().err
