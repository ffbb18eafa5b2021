"""Every part of a run, built from its configuration; `run.py` puts them together."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from pixelbert_plugin import __version__, registry
from pixelbert_plugin.checkpoint.start import Start
from pixelbert_plugin.config.contradictions import refuse_groups, refuse_normalization
from pixelbert_plugin.config.options import EnvConfig, ProcessorsConfig, TrainingConfig
from pixelbert_plugin.data.image_features import ImageFeatures
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.run_data import RunData
from pixelbert_plugin.data.vocabularies import build_processor, fit_answers, fit_text, take_states
from pixelbert_plugin.distributed.processes import local_device_index
from pixelbert_plugin.interfaces import MatchingModel, Model
from pixelbert_plugin.registry import returned
from pixelbert_plugin.registry.portable import portable_options
from pixelbert_plugin.registry.schema import Component, ConfigError
from pixelbert_plugin.system.linux import huge_pages
from pixelbert_plugin.tasks.base import Task

FIRST = 100  # samples of a split that tell what kind of data set it is


def choose_device(training: TrainingConfig) -> torch.device:
    """The device of this process; threads and memory of the CPU as configured."""
    huge_pages()
    if training.num_threads is not None:
        torch.set_num_threads(training.num_threads)
    name = training.device
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device", "'cuda', but torch sees no CUDA device; use auto or cpu")
    is_cuda = name != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", local_device_index(torch.cuda.device_count())) if is_cuda else torch.device("cpu")
    if is_cuda:
        torch.cuda.set_device(device)
    make_repeatable(device)
    return device


def make_repeatable(device: torch.device) -> None:
    """The same seed, the same number: free on a CPU, where else sums of atomics depend on the threads' timing."""
    torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module


def has_channels_last(device: torch.device) -> bool:
    """Whether convolutions run faster on weights and images whose channels stand last: those of tensor cores do."""
    return device.type == "cuda"


def put_on(model: nn.Module, device: torch.device, is_sharded: bool = False) -> nn.Module:
    """The model on its device, there with channels last in the weights of convolutions. FSDP takes no such weights."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if has_channels_last(device) and not is_sharded else model


def choose_convolutions(device: torch.device, sizes_M2: np.ndarray | None) -> None:
    """Let cuDNN try its ways of a convolution and keep the fastest, where a size that was tried comes again: all images are of
    one size. `sizes_M2`: of the training's images, where they are known."""
    is_one = sizes_M2 is not None and bool((sizes_M2 == sizes_M2[:1]).all())
    torch.backends.cudnn.benchmark = device.type == "cuda" and is_one


def build_processors(config: ProcessorsConfig, roles: Iterable[str]) -> dict[str, Any]:
    """A processor for each of the roles "text", "image" and "answers", without the vocabularies that are learned."""
    return {role: build_processor(config, role) for role in roles}


def build_task(chosen: Component, processors: dict[str, Any]) -> Task:
    """The task with its processors, which have their vocabularies."""
    task = registry.build_component("task", chosen, f"task_config.{chosen.type}", processors=processors)
    returned.heads(task)
    return task


def learn_task(chosen: Component, options: ProcessorsConfig, data: RunData, start: Start) -> tuple[Task, dict[str, Any]]:
    """The task and its processors, whose vocabularies are the checkpoint's, or are learned from the data."""
    task_class = registry.get("task", chosen.type, "task")
    for mixture in data.splits.values():
        require_suited(chosen.type, task_class, mixture)
    processors = build_processors(options, task_class.processors)
    saved, is_training = start.content.get("processors", {}), "train" in data.splits
    counts_own = start.is_pretrained and is_training  # a fine-tuning has its own answers
    kept = {role: saved[role] for role in processors if role in saved and not (role == "answers" and counts_own)}
    take_states(processors, kept, str(start))
    fit_text(processors["text"], data.samples)
    if "answers" in processors and "answers" not in kept:
        fit_answers(processors["answers"], data.answering, is_training)
    return build_task(chosen, processors), processors


def require_suited(task: str, task_class: type[Task], mixture: Mixture) -> None:
    """Raises ConfigError for a data set that is another task's, as far as its first samples tell."""
    wanted, needs_answers = task_class.images_per_sample, task_class.needs_answers
    for name, samples in mixture.parts.items():
        first = [samples[index] for index in range(min(len(samples), FIRST))]
        images, answered = len(first[0].images), any(sample.answers or sample.answer is not None for sample in first)
        reason = None
        if wanted not in (None, images):
            reason = f"needs {wanted} image(s) to each text, and {name} has {images}"
        elif needs_answers and not answered and mixture.split == "train":
            reason = f"learns answers, and the train split of {name} has none"
        if reason is not None:
            raise ConfigError("task", f"{task!r} {reason}; choose the task that suits datasets={name}, or other data sets")


def build_model(chosen: Component, task: Task, processors: dict[str, Any], seed: int) -> nn.Module:
    """The model, its heads those of the task. `seed`: of the weights that no file gives."""
    torch.manual_seed(seed)
    model = registry.build_component(
        "model",
        chosen,
        f"model_config.{chosen.type}",
        vocab_size=processors["text"].vocab_size,
        pad_token_id=processors["text"].pad_token_id,
        heads=task.heads(),
    )
    if "image" in processors:
        refuse_normalization(cast(Model, model).normalization, processors["image"].normalization)
    if task.scores_all_pairs:
        registry.require("model", model, MatchingModel, f"the task {registry.place_of(task).name!r}")
    return model


def build_features(
    chosen: Component, env: EnvConfig, model: nn.Module, image: Any, precision: Any, writers: int
) -> ImageFeatures:
    """The kept features of the model's frozen image encoder: `writers` processes compute them in `precision`."""
    encoder, folder = cast(nn.Module, cast(Model, model).frozen_image_encoder), cast(Path, env.cache) / "features"
    return ImageFeatures(encoder, chosen.params, image, precision, precision.device, folder, env.max_features_gb, writers)


def build_optimizers(optimizers: Mapping[str, Component], model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each of the model's parameter groups that is trained. Raises ConfigError where others are set."""
    groups = cast(Model, model).parameter_groups()
    refuse_groups(registry.place_of(model).name, list(groups), list(optimizers))
    return {
        name: registry.build_component("optimizer", optimizers[name], f"optimizer.{name}.params", named_parameters=group)
        for name, group in groups.items()
        if any(parameter.requires_grad for _, parameter in group)
    }


def portable(components: Mapping[str, Component], built: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name, the options of each part that build it again from a checkpoint alone; `components` are what built them."""
    return {name: portable_options(part, components[name].params) for name, part in built.items()}


def versions() -> dict[str, str]:
    """What a checkpoint was made with."""
    packages = ("torch", "torchvision", "transformers", "tokenizers")
    return {"pixelbert_plugin": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
