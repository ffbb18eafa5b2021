"""What a run is made of, built from its configuration: the main process first, so that the others find its caches."""

from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import nn

from pixelbert_plugin.build import build_features, build_model, learn_task
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.checkpoint.start import Start, starting_checkpoint
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.run_data import RunData
from pixelbert_plugin.data.workers import Wait
from pixelbert_plugin.distributed.processes import Processes, is_restarted, job_id
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

    config: RunConfig
    job: Job
    checkpoints: Checkpoints
    data: RunData
    task: Task
    processors: dict[str, Any]  # text, image, answers
    loaders: Loaders
    model: nn.Module
    precision: Precision


def prepare(config: RunConfig, job: Job) -> tuple[Parts, Start]:
    """Claim the run's folder, choose its checkpoint and build data, task and model, the main process first."""
    folder, processes = job.folder, job.processes
    is_training, is_again = "train" in config.splits(), is_restarted()
    may_hold_run = not is_training or config.checkpoint.resume or config.env.overwrite or is_again
    if processes.on_main(lambda: folder.claim(may_hold_run, is_training, job_id())) or is_again:  # restarted by torchrun
        config.checkpoint.resume, config.env.overwrite = True, False
    checkpoints = Checkpoints(folder.path / "checkpoints", config.checkpoint.max_to_keep, processes)
    start = processes.on_main(lambda: Start.chosen(config, *starting_checkpoint(config, checkpoints)))
    wait = Wait(config.training.timeout_seconds, lambda: job.stop.is_set)

    def build() -> Parts:
        data = RunData.of(config)
        task, processors = learn_task(config, data, start)
        model = build_model(config, task, processors).to(job.device)
        numbers = precision.choose(config.training.precision, config.precision_config, job.device)
        returned.description(numbers)
        returned.autocast(numbers)
        features = build_features(config, model, processors, numbers, processes.world_size)
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
        return Parts(config, job, checkpoints, data, task, processors, loaders, model, numbers)

    return processes.main_first(build), start


def used(parts: Parts) -> dict[str, str]:
    """What the run computes with, as far as the configuration leaves it open."""
    processes = parts.job.processes.world_size
    parallel = parts.config.training.parallel if processes > 1 else "none"
    return {**parts.precision.description, "device": str(parts.job.device), "parallel": parallel, "processes": str(processes)}
