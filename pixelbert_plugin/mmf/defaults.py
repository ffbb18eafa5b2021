"""YAML files of our components' defaults, as MMF asks of every model and builder by `config_path()`."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.config import read_values
from pixelbert_plugin.config.files import PACKAGE
from pixelbert_plugin.config.options import EnvConfig, ProcessorsConfig
from pixelbert_plugin.mmf.setting import CACHE, LENGTH
from pixelbert_plugin.registry import yaml_text


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pixelbert_mmf_")  # gone with the process


def model_yaml(own: str, name: str) -> str:
    """Absolute path of the defaults of a model, and of what our parts read beside it."""
    content = {
        "model_config": {name: {**_options("model", own), "losses": []}},
        "task": "vqa",
        "task_config": {},
        "processors": dataclasses.asdict(ProcessorsConfig()),
        "checkpoint": {"pretrained": None},
        "training": {"texts_per_image": 1, "bucket_by_size": False, "dataset_weights": {}, LENGTH: None},
        "evaluation": {"batch_size": None},
        "env": {CACHE: EnvConfig().cache_dir},
    }
    return _write(f"model_{name}", content)


def builder_yaml(own: str, name: str) -> str:
    """Absolute path of a data set's defaults: those shipped in datasets/, over its Config's."""
    values = shipped(own)
    options = _options("builder", own) | values.get("dataset_config", {}).get(own, {})
    return _write(f"dataset_{name}", {**values, "dataset_config": {name: options}})


def shipped(own: str) -> dict[str, Any]:
    """datasets/<own>/defaults.yaml: the official files' paths and, for some, processors. {} where there is none."""
    for root in (PACKAGE, PACKAGE.parent):
        file = root / "datasets" / own / "defaults.yaml"
        if file.is_file():
            return read_values(file, [])
    return {}


def _options(kind: Any, name: str) -> dict[str, Any]:
    config = registry.options_of(kind, name)
    return {} if config is None else dataclasses.asdict(config())


def _write(stem: str, content: dict[str, Any]) -> str:
    path = Path(_folder().name) / f"{stem}.yaml"
    path.write_text(yaml_text.dump(content), encoding="utf-8")
    return str(path)
