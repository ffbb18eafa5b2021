"""Modules by their former names, for one release: importing `pixelbert_plugin.schema` gives `registry.schema` and a notice."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

PACKAGE = "pixelbert_plugin."
MOVED = {
    "arguments": "commands.arguments",
    "cli": "commands.run",
    "command": "commands.command",
    "config_files": "config.files",
    "console": "system.console",
    "data.order": "data.sampler",
    "data_cli": "commands.data",
    "describe": "config.describe",
    "engine.apex": "precision.apex.apex",
    "engine.apex_amp": "precision.apex.amp",
    "engine.apex_levels": "precision.apex.levels",
    "engine.board": "trackers.tensorboard",
    "engine.checkpoint": "checkpoint.checkpoints",
    "engine.checkpoint_folder": "checkpoint.folder",
    "engine.content": "checkpoint.content",
    "engine.dist": "distributed.processes",
    "engine.evaluated": "checkpoint.evaluated",
    "engine.evaluator": "evaluation.evaluator",
    "engine.events": "training.tracking",
    "engine.export": "checkpoint.export",
    "engine.fused_optim": "precision.apex.fused_optim",
    "engine.length": "training.length",
    "engine.loss_scale": "precision.loss_scale",
    "engine.master_weights": "precision.master_weights",
    "engine.optim": "optim.optimizers",
    "engine.parallel": "distributed.parallel",
    "engine.precision": "precision.native",
    "engine.progress": "system.progress",
    "engine.records": "training.records",
    "engine.restore": "checkpoint.restore",
    "engine.run_folder": "training.run_folder",
    "engine.score_blocks": "evaluation.score_blocks",
    "engine.scoring": "evaluation.retrieval",
    "engine.stop": "training.stop",
    "engine.tensor_store": "checkpoint.tensor_store",
    "engine.trainer": "training.trainer",
    "hub": "checkpoint.hub",
    "interpolation": "config.interpolation",
    "interrupt": "system.interrupt",
    "linux": "system.linux",
    "mmf_checkpoint": "mmf.checkpoint_reader",
    "new_plugin": "commands.new_plugin",
    "nvidia_apex": "precision.apex.nvidia",
    "options": "config.options",
    "plugins": "registry.plugins",
    "report": "evaluation.report",
    "sanity": "training.sanity",
    "saved": "config.saved",
    "scalars": "registry.scalars",
    "schema": "registry.schema",
    "sweep_cli": "commands.sweep",
    "vocabularies": "data.vocabularies",
    "weights": "checkpoint.weights",
    "yaml_text": "registry.yaml_text",
}


class Former(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under its former name and gives the one of today, so that its classes are the same."""

    def __init__(self) -> None:
        self.specs: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        name = fullname.removeprefix(PACKAGE)
        if name == fullname or (name not in MOVED and name != "engine"):
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=name == "engine")

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        name = spec.name.removeprefix(PACKAGE)
        if name == "engine":
            return None
        now = f"{PACKAGE}{MOVED[name]}"
        warnings.warn(f"{spec.name} is {now} now; the former name goes with the next release", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(now)
        self.specs[name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It was executed under its own name; the import machinery has given it the former one's spec meanwhile."""
        name = module.__spec__.name.removeprefix(PACKAGE) if module.__spec__ is not None else ""
        if name in self.specs:
            module.__spec__ = self.specs.pop(name)


def install() -> None:
    if not any(isinstance(finder, Former) for finder in sys.meta_path):
        sys.meta_path.append(Former())


def callable_as_module(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function `run`, which has `run.run` with a notice: `from pixelbert_plugin import run` gave the module before."""
    name = function.__name__

    def former(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"pixelbert_plugin.{name} is the function now; {name}.{name} goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return function(*args, **kwargs)

    if not hasattr(function, name):
        setattr(function, name, former)
    return function
