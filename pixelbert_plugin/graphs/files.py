"""The files of an exported graph: FILE.pt2 or FILE.onnx, and FILE.json with all that makes its inputs and reads its outputs."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.graphs.program import INPUTS, dimensions, least_side, trace

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel

PACKAGES = {"pt2": (), "onnx": ("onnx", "onnxscript")}  # beyond torch
MAX_ONNX = 1_800_000_000  # bytes of weights in one .onnx file, which can hold 2 GB; more lie in FILE.onnx.data


def write(loaded: "LoadedModel", target: Path, form: str) -> Path:
    """Write `target` and its .json; both whole or not at all. Raises UserError."""
    key = f"--format {form}"
    if target.suffix != f".{form}":
        raise UserError(f"--export {str(target)!r}: must end in .{form}")
    names = [target.name, target.with_suffix(".json").name]
    if found := [name for name in names if os.path.lexists(target.with_name(name))]:
        raise UserError(f"--export {str(target)!r}: {found[0]} is there already; remove it, or choose another name")
    if missing := [name for name in PACKAGES[form] if importlib.util.find_spec(name) is None]:
        raise UserError(f"{key}: needs the package {' and '.join(missing)}; pip install 'pixelbert_plugin[export]'")
    program = trace(loaded, key)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    with writing(target, "--export"):
        try:
            aside.mkdir(parents=True)
            (_write_pt2 if form == "pt2" else _write_onnx)(loaded, program, aside / target.name)
            text = json.dumps(options(loaded, outputs(program)), ensure_ascii=False, indent=1)
            (aside / names[1]).write_text(text + "\n", encoding="utf-8")
            for file in sorted(aside.iterdir(), key=lambda file: file.name == target.name):  # the graph last
                os.replace(file, target.with_name(file.name))
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def options(loaded: "LoadedModel", heads: list[str]) -> dict[str, Any]:
    """What turns an image and a text into the graph's inputs, and its outputs, the logits of `heads`, into an answer."""
    text, image = loaded.processors["text"], loaded.processors["image"]
    found = {
        "task": loaded.config.task,
        "inputs": list(INPUTS),
        "outputs": heads,
        "images_per_text": loaded.task.images_per_sample,
        "least_side": least_side(loaded),
        "text": {"max_length": text.max_length, "pad_token_id": text.pad_token_id, **_tokenizer(text.state_dict())},
        "image": _plain(image.config),
    }
    if "answers" in loaded.processors:
        found["answers"] = list(loaded.processors["answers"].spellings)
    return found


def outputs(program: ExportedProgram) -> list[str]:
    """The heads whose logits come out, in order."""
    return list(program.call_spec.out_spec.context or []) if program.call_spec.out_spec is not None else []


def _tokenizer(state: dict[str, Any]) -> dict[str, Any]:
    """The content of tokenizer.json, for the package tokenizers."""
    return {"tokenizer": json.loads(state["tokenizer"])} if "tokenizer" in state else {"state": state}


def _plain(config: Any) -> dict[str, Any]:
    return {} if config is None else asdict(config)


def _write_pt2(loaded: "LoadedModel", program: ExportedProgram, file: Path) -> None:
    torch.export.save(program, file)


def _write_onnx(loaded: "LoadedModel", program: ExportedProgram, file: Path) -> None:
    weights = sum(value.nbytes for value in program.state_dict.values())
    options: dict[str, Any] = {"input_names": list(INPUTS), "output_names": outputs(program)}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # some versions print what they have rewritten
        warnings.filterwarnings("ignore", message=".*axis name", category=UserWarning)  # two inputs share a dimension's name
        made = torch.onnx.export(program, dynamo=True, dynamic_shapes=dimensions(loaded), verbose=False, **options)
    assert made is not None
    made.save(file, external_data=weights > MAX_ONNX)
