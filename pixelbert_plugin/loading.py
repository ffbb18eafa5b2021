"""`load`: a trained model from its files alone, ready to be asked about images and texts.

A checkpoint keeps all that its parts are built from: options without the files they once named, vocabularies, weights. So no
data set is read and no pre-trained weights, and the hub is asked only for a checkpoint that lies there. A plugin is imported
only where it defines one of the parts.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.asking.loaded_model import LoadedModel
from pixelbert_plugin.build import build_model, build_processors, build_task, put_on
from pixelbert_plugin.checkpoint import hub, huggingface_folder, restore
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.config import shipped
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.vocabularies import VOCABULARY, take_states
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import Precision
from pixelbert_plugin.registry import plugins, yaml_text
from pixelbert_plugin.registry.schema import UnknownComponentError
from pixelbert_plugin.system.linux import huge_pages
from pixelbert_plugin.tasks.base import Task

KEY = "path"  # what errors call the argument of `load`
OWN: Any = object()  # in the place of a path: the model that comes with the package


def load(
    path: str | Path = OWN,
    *,
    device: str | torch.device = "cpu",
    user_dir: str | Path | None = None,
    fast: bool = False,
    precision: str = "fp32",
) -> LoadedModel:
    """A trained model ready for use: `load("save/vqa2").answer("dog.jpg", "what animal is it?").best.text`.

    Without a path it is the small model that comes with the package, trained on easy pictures (docs/asking.md).

    `path`: a save folder (its best checkpoint is taken), a checkpoint's folder, a file of `pixelbert-run --export`, a folder of
    its `--format hf`; or, where nothing here has that name, ORGANISATION/REPOSITORY of one of these two on the hub of
    Hugging Face.
    `device`: "cpu", "cuda", "cuda:1", …
    `user_dir`: where the plugin of the run is now, should it define the model, an encoder, a processor or the task. By default
    it is looked for where the run had it; an exported file does not say where that was. It is Python code, which is executed.
    `fast`: change the model for inference alone: a ResNet's norms are folded into its convolutions, channels stand last.
    Outputs are the same up to rounding, where without it they are the run's own to the last bit.
    `precision`: what the forward pass computes in, by its registered name; "bf16" agrees to two or three digits.

    Raises UserError where the path is no checkpoint, is damaged, or needs a plugin that is not there.
    """
    if path is OWN:
        path = shipped.trained().checkpoint
    return load_named(KEY, path, device=device, user_dir=user_dir, fast=fast, precision=precision)


def load_named(
    key: str, path: str | Path, *, device: str | torch.device, user_dir: str | Path | None, fast: bool, precision: str
) -> LoadedModel:
    """`load`, whose errors call the path `key`."""
    if not isinstance(path, str | Path) or not str(path).strip():
        raise UserError(f"{key}={path!r:.80}: must be the path of a save folder, a checkpoint or an exported file")
    plugins.load(str(user_dir) if user_dir is not None else None)
    given = f"{key}={str(path)!r}"
    place = _checkpoint(path, key)
    content = restore.read_content(place, key)
    config = _configuration(content, place, given)
    device = _device(device)
    try:
        task, processors, model = _build(config, content, given)
    except UnknownComponentError as error:
        _load_plugin(config.env.user_dir, config.plugins, error, given)
        task, processors, model = _build(config, content, given)
    restore.load_weights(place, model, key)
    numbers: Precision = registry.build("precision", precision, None, "precision", device=device)
    numbers.prepare(put_on(model, device), {})
    return LoadedModel(model.eval(), config, processors, task, device, place, numbers, fast)


def _checkpoint(given: str | Path, key: str) -> Path:
    """The checkpoint that is meant: of a save folder the best one, of a repository of the hub its folder or the file in it."""
    path = Path(given).expanduser()
    if hub.is_name(given) and not path.exists():
        folder = hub.repository(str(given), key)
        return folder if huggingface_folder.is_one(folder) else hub.exported_file(folder, str(given), key)
    if not (path / "checkpoints").is_dir():
        return path
    found = Checkpoints(path / "checkpoints", max_to_keep=1).finished()
    if found is None:
        raise UserError(f"{key}={str(path)!r}: this run has saved no checkpoint yet")
    return found


def _configuration(content: dict[str, Any], place: Path, given: str) -> RunConfig:
    """The run's configuration as the checkpoint has it, its options those that name no files."""
    if not content.get("config"):
        raise UserError(f"{given}: holds no configuration of a run; give a folder or an exported file of pixelbert-run")
    try:
        values = yaml_text.parse(content["config"])
        config = configuration.typed(place / "config.yaml" if place.is_dir() else place, values, {})
    except (ValueError, AttributeError, TypeError, UserError) as error:
        raise UserError(f"{given}: its configuration is invalid: {error}") from error
    portable = content.get("portable", {})  # an earlier version did not save it: then files are read again
    for name in vars(config.processors).keys() & portable:
        getattr(config.processors, name).params = portable[name]
    if "model" in portable:
        config.model_config[config.model] = portable["model"]
    if config.env.user_dir:
        is_exported = place.is_file()  # such a file has the name only
        config.env.user_dir = config.env.user_dir if is_exported else os.path.join(os.path.realpath(place), config.env.user_dir)
    return config


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r}: {str(error).splitlines()[0]}") from error
    huge_pages()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={str(name)!r}: torch sees no CUDA device; use cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # of a backend that is not compiled in, with an advice for its developers
        raise UserError(f"device={str(name)!r}: torch cannot compute on it here; use cpu") from error
    return device


def _build(config: RunConfig, content: dict[str, Any], given: str) -> tuple[Task, dict[str, Any], nn.Module]:
    """Task, processors and model as the checkpoint has them, the model's weights still random."""
    states, roles = content.get("processors", {}), registry.get("task", config.task, "task").processors
    built = [f"model_config.{config.model}", f"task_config.{config.task}", *(f"processors.{role}.params" for role in roles)]
    configuration.configure(config, only=built)
    processors = build_processors(config.processors, roles)
    take_states(processors, {role: state for role, state in states.items() if role in processors}, given)
    for role in VOCABULARY.keys() & processors.keys() - states.keys():
        if processors[role].needs_fit:
            raise UserError(f"{given}: holds no vocabulary of processors.{role}")
    task = build_task(config.chosen_task, processors)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours
        return task, processors, build_model(config.chosen_model, task, processors, config.training.seed)


def _load_plugin(user_dir: str | None, modules: list[str], unknown: UnknownComponentError, given: str) -> None:
    """Import the run's plugin, which should define the component that is unknown. Raises UserError where it does not."""
    named = [f"env.user_dir={user_dir!r}"] * bool(user_dir) + [f"plugins={modules}"] * bool(modules)
    what = f"{given}: the {unknown.kind} {unknown.name!r}"
    if not named:
        raise UserError(f"{what} is not installed here; install the package that defines it, or name its code: user_dir=PATH")
    try:
        if user_dir and not os.path.isabs(user_dir):
            raise UserError("an exported file does not say where it lies")
        plugins.load(user_dir, modules)
        registry.get(unknown.kind, unknown.name)
    except UserError as error:
        raise UserError(
            f"{what} is of the run's plugin, {', '.join(named)}, which is not there ({error}); "
            "load(…, user_dir=PATH) says where it is now"
        ) from error
