"""A folder in transformers' layout as a checkpoint: what `--format hf` wrote, or the classes of `pixelbert_plugin.huggingface`
saved after a training by transformers. It is read without transformers, and nothing in it is executed.

    config.json   model.safetensors, or several with model.safetensors.index.json   tokenizer.json   tokenizer_config.json
    processor_config.json

It has no digest: who changes it, a training of theirs, writes none.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pixelbert_plugin.checkpoint import content
from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.checkpoint.weights import one_line, require_shards
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import yaml_text

MODEL_TYPE, PREFIX = "pixelbert", "pixelbert."
FORMER = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))
NO_DATASET = "unknown"  # in the place of a data set's name, where no run of ours trained the model
IMAGE_KINDS = ("image_processor_type", "processor_class")  # of an image processor's file, beside its options


def is_one(path: Path) -> bool:
    """Whether the folder is one of transformers' layout with this model."""
    try:
        return json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"] == MODEL_TYPE
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_content(path: Path, key: str) -> dict[str, Any]:
    """What a checkpoint would say beside its tensors. Raises UserError."""
    try:
        found = _content(path)
        content.check(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{key}={str(path)!r}: not a folder of pixelbert_plugin.huggingface ({one_line(error)})") from error
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """The native model's tensors by its names. Raises UserError."""
    try:
        require_shards(path)
        files = sorted(path.glob("model*.safetensors"))
        if not files:
            raise ValueError("holds no model.safetensors")
        state = {name: value for file in files for name, value in load_file(file).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{str(path)!r}: cannot be read ({one_line(error)})") from error
    return {_own_name(name): value.float() if value.is_floating_point() else value for name, value in state.items()}


def _own_name(name: str) -> str:
    """A tensor's name in the native model. transformers 5.0 writes what it has read with TensorFlow's names of a layer norm."""
    name = name.removeprefix(PREFIX)
    for theirs, ours in FORMER:
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    return name


def _content(path: Path) -> dict[str, Any]:
    config = _json(path / "config.json")
    model, task, run = config["model_options"], config["task"], config.get("run") or {}
    if task is None:
        raise ValueError("config.json names no task")
    image, text = _image_options(path), _text_options(path, run)
    processors = run.get("processors") or {}
    values = {
        "run_type": "val",
        "datasets": [NO_DATASET],
        **run,
        "model": MODEL_TYPE,
        "task": task,
        "model_config": {MODEL_TYPE: model},
        "task_config": {task: config.get("task_options") or {}},
        "processors": {
            **processors,
            "image": {"type": "image", "params": image},
            "text": {"type": "bert_tokenizer", "params": text},
        },
    }
    states: dict[str, dict[str, Any]] = {"text": {"tokenizer": json.dumps(_tokenizer(path), ensure_ascii=False)}}
    portable = {"model": model, "image": image, "text": text}
    if (labels := config.get("id2label")) is not None and task == "vqa":
        spellings = [labels[str(index)] for index in range(len(labels))]
        answers = config.get("answers") or []
        states["answers"] = {"answers": answers if len(answers) == len(spellings) else spellings, "spellings": spellings}
        portable["answers"] = {**((processors.get("answers") or {}).get("params") or {}), "vocabulary": None}
    return {
        "state": asdict(TrainState()),
        "versions": {"transformers": str(config.get("transformers_version"))},
        "config": yaml_text.dump(values),
        "processors": states,
        "portable": portable,
    }


def _tokenizer(path: Path) -> dict[str, Any]:
    """tokenizer.json without the padding and the limit that a call of transformers' leaves in it: ours are elsewhere."""
    return {**_json(path / "tokenizer.json"), "truncation": None, "padding": None}


def _text_options(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    options = ((run.get("processors") or {}).get("text") or {}).get("params") or {}
    longest = _json(path / "tokenizer_config.json").get("model_max_length")
    limit = {"max_length": longest} if isinstance(longest, int) and 3 <= longest < 2**31 else {}
    return {**options, **limit, "vocabulary": "train"}


def _image_options(path: Path) -> dict[str, Any]:
    """Of processor_config.json, or of preprocessor_config.json, which an image processor by itself is saved in."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (path / name).is_file():
            found = _json(path / name)
            found = found.get("image_processor", found if name.startswith("pre") else {})
            if found:
                return {key: value for key, value in found.items() if key not in IMAGE_KINDS}
    raise ValueError("holds no processor_config.json with an image_processor")


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no mapping")
    return found
