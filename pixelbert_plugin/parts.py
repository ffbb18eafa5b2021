"""What a run is made of, built from its configuration: the main process first, so that the others find its caches."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from pixelbert_plugin.build import build_features, build_model, learn_task, put_on
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.checkpoint.start import PRETRAINED, Start, evaluated_checkpoint, starting_checkpoint
from pixelbert_plugin.config.contradictions import refuse_features, refuse_task
from pixelbert_plugin.config.options import RunConfig, TrainingConfig
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.run_data import RunData, build_builders
from pixelbert_plugin.data.workers import Wait
from pixelbert_plugin.distributed.processes import Processes, is_restarted, job_id
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.precision import native as precision
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.registry import returned
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.training.run_folder import RunFolder
from pixelbert_plugin.training.stop import StopSignal


@dataclass(frozen=True)
class Job:
    """Where a run takes place, and who is told of it."""

    console: Console
    device: torch.device
    processes: Processes
    stop: StopSignal
    folder: RunFolder


@dataclass(frozen=True)
class Parts:
    """What `run` has built, for the steps below."""

    training: TrainingConfig
    job: Job
    checkpoints: Checkpoints
    data: RunData
    task: Task
    processors: dict[str, Any]  # text, image, answers
    loaders: Loaders
    model: nn.Module
    precision: Precision


def prepare(config: RunConfig, job: Job) -> tuple[Parts, Start]:
    """Claim the run's folder, choose its checkpoint and build data, task and model, the main process first.

    Here the configuration is taken apart: each part gets the section that it needs.
    """
    folder, processes = job.folder, job.processes
    is_training, is_again = "train" in config.splits(), is_restarted()
    may_hold_run = not is_training or config.checkpoint.resume or config.env.overwrite or is_again
    if processes.on_main(lambda: folder.claim(may_hold_run, is_training, job_id())) or is_again:  # restarted by torchrun
        config.checkpoint.resume, config.env.overwrite = True, False
    checkpoints = Checkpoints(folder.path / "checkpoints", config.checkpoint.max_to_keep, processes)

    def choose() -> Start:
        path, key = (
            starting_checkpoint(config.checkpoint, checkpoints)
            if is_training
            else evaluated_checkpoint(config.checkpoint, checkpoints, config.is_asked_now(PRETRAINED))
        )
        return Start.chosen(path, key, config.chosen_model, config.processors.image)

    start = processes.on_main(choose)
    wait = Wait(config.training.timeout_seconds, lambda: job.stop.is_set)

    def build() -> Parts:
        data = RunData.of(build_builders(config.datasets, config.dataset_config, config.env), config.splits())
        task, processors = learn_task(config.chosen_task, config.processors, data, start)
        data = data.with_known_answers(processors.get("answers"), config.env.cache)
        refuse_task(config.task, task, config.training)
        model = build_model(config.chosen_model, task, processors, config.training.seed)
        model = put_on(model, job.device, config.training.parallel == "fsdp")
        numbers = precision.choose(config.training.precision, config.precision_config, job.device)
        returned.description(numbers)
        returned.autocast(numbers)
        features = None
        if config.training.cache_features:
            image = processors["image"]
            refuse_features(config, cast(Model, model).frozen_image_encoder is not None, image.augments)
            features = build_features(config.chosen_model, config.env, model, image, numbers, processes.world_size)
        loaders = Loaders(
            config.training,
            config.env.cache,
            task,
            processors,
            job.device,
            processes.rank,
            processes.world_size,
            wait,
            features,
        )
        return Parts(config.training, job, checkpoints, data, task, processors, loaders, model, numbers)

    return processes.main_first(build), start


def used(parts: Parts) -> dict[str, str]:
    """What the run computes with, as far as the configuration leaves it open."""
    processes = parts.job.processes.world_size
    parallel = parts.training.parallel if processes > 1 else "none"
    return {**parts.precision.description, "device": str(parts.job.device), "parallel": parallel, "processes": str(processes)}
