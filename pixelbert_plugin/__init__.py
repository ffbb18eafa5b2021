"""Pixel-BERT as registered components: train by `run`, ask by `load`, add a component by `register_*`.

    import pixelbert_plugin

    pixelbert_plugin.run("projects/pixelbert/configs/vqa2.yaml", overrides=["env.data_dir=/data"])

The names below are the public face, each imported when it is first used, so that importing this package takes no time and
loads no torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pixelbert_plugin.system import moved

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel
    from pixelbert_plugin.asking.results import (
        Answer,
        Answers,
        Comparison,
        Filled,
        Fillings,
        Found,
        Match,
        SearchResults,
        Unreadable,
    )
    from pixelbert_plugin.asking.search import Gallery
    from pixelbert_plugin.config.options import RunConfig
    from pixelbert_plugin.data.builders.base import Builder
    from pixelbert_plugin.errors import UserError
    from pixelbert_plugin.loading import load
    from pixelbert_plugin.registry import (
        register_builder,
        register_checkpoint_reader,
        register_encoder,
        register_explanation,
        register_metric,
        register_model,
        register_optimizer,
        register_precision,
        register_processor,
        register_scheduler,
        register_task,
        register_tracker,
    )
    from pixelbert_plugin.run import run
    from pixelbert_plugin.tasks.base import Task
    from pixelbert_plugin.types import Batch, ModelOutput, Sample

__version__ = "0.1.0"  # the one place that has it; setup.py reads it here

__all__ = [
    "Answer",
    "Answers",
    "Batch",
    "Builder",
    "Comparison",
    "Filled",
    "Fillings",
    "Found",
    "Gallery",
    "LoadedModel",
    "Match",
    "ModelOutput",
    "RunConfig",
    "Sample",
    "SearchResults",
    "Task",
    "Unreadable",
    "UserError",
    "__version__",
    "load",
    "register_builder",
    "register_checkpoint_reader",
    "register_encoder",
    "register_explanation",
    "register_metric",
    "register_model",
    "register_optimizer",
    "register_precision",
    "register_processor",
    "register_scheduler",
    "register_task",
    "register_tracker",
    "run",
]

_HOMES = {  # of what is imported when it is used, by module; as TYPE_CHECKING has it
    "asking.loaded_model": ["LoadedModel"],
    "asking.results": "Answer Answers Comparison Filled Fillings Found Match SearchResults Unreadable".split(),
    "asking.search": ["Gallery"],
    "config.options": ["RunConfig"],
    "data.builders.base": ["Builder"],
    "errors": ["UserError"],
    "loading": ["load"],
    "registry": [name for name in __all__ if name.startswith("register_")],
    "run": ["run"],
    "tasks.base": ["Task"],
    "types": ["Batch", "ModelOutput", "Sample"],
}
_HOME = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`pixelbert_plugin.run` is the function, though run.py is a module too: Python sets a package's attribute to a submodule
    whenever that is imported first. `from pixelbert_plugin.run import run` and `import pixelbert_plugin.run` work as ever."""

    @property
    def run(self) -> Any:
        return moved.callable_as_module(importlib.import_module(_HOME["run"]).run)

    @run.setter
    def run(self, module: ModuleType) -> None:
        """Python's own, of the submodule."""


sys.modules[__name__].__class__ = _Package
moved.install()
