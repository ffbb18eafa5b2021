"""Every part of a run, built from its configuration; `run.py` puts them together."""

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelbert_plugin import __version__, registry
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.negatives import Negatives
from pixelbert_plugin.data.reader import BatchReader
from pixelbert_plugin.data.vocabularies import build_processor, fit_answers, fit_text, take_vocabulary
from pixelbert_plugin.data.workers import Wait
from pixelbert_plugin.distributed.processes import Processes, local_device_index
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import MatchingModel
from pixelbert_plugin.registry.portable import portable_options
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.training.stop import StopSignal

FIRST = 100  # samples of a split that tell what kind of data set it is


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run starts from, goes on from, or evaluates; without one, it starts from random weights."""

    path: Path | None = None
    key: str = ""  # the config key that named it
    content: dict[str, Any] = field(default_factory=dict)  # what it says beside its tensors

    def __str__(self) -> str:
        return f"{self.key}={str(self.path)!r}"


def choose_device(config: RunConfig) -> torch.device:
    """The device of this process; threads of the CPU as configured."""
    if config.training.num_threads is not None:
        torch.set_num_threads(config.training.num_threads)
    name = config.training.device
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
    torch.utils.deterministic.fill_uninitialized_memory = False  # for debugging only, and slow


def check_plan(config: RunConfig) -> None:
    """Refuse contradictions between options before any work."""
    training, paths = config.training, config.checkpoint
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if training.batch_size < processes:
        raise ConfigError(
            "training.batch_size",
            f"{training.batch_size} pairs per update are fewer than the {processes} processes that share them",
        )
    if training.parallel == "fsdp" and training.precision == "apex":
        raise ConfigError("training.parallel", "'fsdp' shards float32 weights, which Apex would cast; use ddp, or fp16 or bf16")
    for name in training.dataset_weights:
        if name not in config.datasets:
            raise ConfigError(f"training.dataset_weights.{name}", f"is not among datasets={','.join(config.datasets)}")
    if "train" in config.splits():
        if training.max_updates is None and training.max_epochs is None:
            raise ConfigError("training.max_updates", "is not set, and neither is training.max_epochs; set one")
        if paths.resume and config.env.overwrite:
            raise ConfigError("env.overwrite", "contradicts checkpoint.resume=true; set one of the two")
        if training.early_stop.enabled and "val" not in config.splits():
            raise ConfigError("training.early_stop.enabled", "needs val in run_type (train_val), to have a metric to monitor")
        if paths.resume_file and not paths.resume:
            raise ConfigError(
                "checkpoint.resume_file", "needs checkpoint.resume=true to train on; or use checkpoint.pretrained"
            )
    elif paths.resume and config.is_asked_now("checkpoint.resume"):
        raise ConfigError("checkpoint.resume", "is for training; run_type has no train in it")


def starting_checkpoint(config: RunConfig, checkpoints: Checkpoints) -> tuple[Path | None, str]:
    """The checkpoint that the run starts from, or evaluates, and the config key that named it."""
    paths = config.checkpoint
    if "train" not in config.splits():
        if paths.resume_file is not None and not checkpoints.may_stand_for_run(Path(paths.resume_file)):
            raise ConfigError(
                "checkpoint.resume_file",
                f"{paths.resume_file!r}: env.save_dir={config.env.save_dir!r} holds a run, whose own results and predictions "
                "would be replaced; choose another env.save_dir for these",
            )
        return finished_checkpoint(config, checkpoints)
    if paths.resume_file is not None:
        if Path(paths.resume_file).is_file():
            raise ConfigError(
                "checkpoint.resume_file",
                f"{paths.resume_file!r} is a file of weights; training goes on from a folder. Start from its weights "
                "with checkpoint.pretrained",
            )
        return Path(paths.resume_file), "checkpoint.resume_file"
    if paths.resume and (newest := checkpoints.newest()) is not None:
        return newest, "checkpoint.resume"
    return (Path(paths.pretrained), "checkpoint.pretrained") if paths.pretrained else (None, "")


def finished_checkpoint(config: RunConfig, checkpoints: Checkpoints) -> tuple[Path, str]:
    """The checkpoint to evaluate or export, and the config key that named it.

    `checkpoint.pretrained` is what a training starts from: only where no run has trained here is it evaluated itself.
    """
    paths, save_dir = config.checkpoint, f"env.save_dir={config.env.save_dir!r}"
    if paths.resume_file is not None:
        return Path(paths.resume_file), "checkpoint.resume_file"
    own = checkpoints.finished()
    if own is None and paths.pretrained is not None:
        return Path(paths.pretrained), "checkpoint.pretrained"
    if own is None:
        raise UserError(
            f"{save_dir}: holds no checkpoint to evaluate; train first, or name one with checkpoint.resume_file=FOLDER"
        )
    if paths.pretrained is not None and config.is_asked_now("checkpoint.pretrained"):
        raise ConfigError(
            "checkpoint.pretrained",
            f"{paths.pretrained!r}: {save_dir} holds a run that has trained on, to {own}; leave checkpoint.pretrained out to "
            "take that, or name the weights to take with checkpoint.resume_file",
        )
    return own, "env.save_dir"


def build_builders(config: RunConfig) -> dict[str, Builder]:
    data_dir = Path(config.env.data_dir)
    return {
        name: registry.build(
            "builder",
            name,
            config.dataset_config.get(name),
            f"dataset_config.{name}",
            data_dir=data_dir,
            cache_dir=cache_dir(config),
        )
        for name in config.datasets
    }


def cache_dir(config: RunConfig) -> Path | None:
    return Path(config.env.cache_dir) if config.env.cache_dir else None


def build_task(
    config: RunConfig, builders: dict[str, Builder], data: dict[str, Mixture], start: Start
) -> tuple[Task, dict[str, Any]]:
    """The task and its processors, their vocabularies taken from the checkpoint of `start` or fitted to the data."""
    task_class = registry.get("task", config.task, "task")
    for mixture in data.values():
        require_suited(config.task, task_class, mixture)
    processors = {name: build_processor(config, name) for name in task_class.processors}
    saved = start.content.get("processors", {})
    is_beginning = start.key == "checkpoint.pretrained" and "train" in config.splits()
    if "text" in saved:  # its word embeddings belong to its vocabulary
        take_vocabulary("text", processors["text"], saved["text"], str(start))
    if "answers" in saved and "answers" in processors and not is_beginning:  # a fine-tuning counts its own answers
        take_vocabulary("answers", processors["answers"], saved["answers"], str(start))

    def samples(split: str):
        return data[split] if split in data else Mixture.build(builders, split)

    fit_text(processors["text"], samples)
    if "answers" in processors and (is_beginning or "answers" not in saved):
        fit_answers(config, processors["answers"], samples)
    task = registry.build(
        "task", config.task, config.task_config.get(config.task), f"task_config.{config.task}", processors=processors
    )
    for key in ("batch_size", "micro_batch_size"):
        if (pairs := getattr(config.training, key)) is not None and pairs % task.pairs_per_sample:
            raise ConfigError(
                f"training.{key}",
                f"{pairs} pairs: a sample of the task {config.task!r} is {task.pairs_per_sample} of them; give a multiple",
            )
    return task, processors


def require_suited(task: str, task_class: type, mixture: Mixture) -> None:
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


def build_model(config: RunConfig, task: Task, processors: dict[str, Any]) -> nn.Module:
    torch.manual_seed(config.training.seed)
    model = registry.build(
        "model",
        config.model,
        config.model_config.get(config.model),
        f"model_config.{config.model}",
        vocab_size=processors["text"].vocab_size,
        pad_token_id=processors["text"].pad_token_id,
        heads=task.heads(),
    )
    if task.scores_all_pairs:
        registry.require("model", model, MatchingModel, f"the task {config.task!r}")
    return model


def build_optimizers(config: RunConfig, model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each of the model's parameter groups. Raises ConfigError where the config has others."""
    groups = model.parameter_groups()
    for name in config.optimizer:
        if name not in groups:
            raise ConfigError(f"optimizer.{name}", f"{config.model} has no such parameter group (it has {', '.join(groups)})")
    for name in groups:
        if name not in config.optimizer:
            raise ConfigError(
                f"optimizer.{name}", "is not set; every parameter group needs an optimizer, such as {type: adamw}"
            )
    return {
        name: registry.build_component("optimizer", config.optimizer[name], f"optimizer.{name}.params", named_parameters=group)
        for name, group in groups.items()
        if any(parameter.requires_grad for _, parameter in group)
    }


def build_loader(
    config: RunConfig,
    mixture: Mixture,
    task: Task,
    processors: dict[str, Any],
    device: torch.device,
    processes: Processes,
    stop: StopSignal | None = None,
) -> Loader:
    training, image = config.training, processors["image"]
    negatives = Negatives(mixture, task.num_negatives) if task.num_negatives else None
    return Loader(
        BatchReader(mixture, processors["text"], image, task.prepare, training.seed, negatives),
        device,
        training.num_workers,
        mixture.resized_sizes(image, cache_dir(config)) if training.bucket_by_size else None,
        {name: weight for name, weight in training.dataset_weights.items() if name in mixture.parts},
        processes.rank,
        processes.world_size,
        Wait(training.timeout_seconds, (lambda: stop.is_set) if stop else bool),
    )


def portable(config: RunConfig, model: nn.Module, processors: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of "model" and of each processor that build them again from a checkpoint alone."""
    options = {name: getattr(config.processors, name).params for name in processors}
    options["model"] = config.model_config.get(config.model)
    return {name: portable_options(part, options[name]) for name, part in {"model": model, **processors}.items()}


def versions() -> dict[str, str]:
    """What a checkpoint was made with."""
    packages = ("torch", "torchvision", "transformers", "tokenizers")
    return {"pixelbert_plugin": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
