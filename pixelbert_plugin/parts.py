"""What a run is made of, built from its configuration: the main process first, so that the others find its caches."""

from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch import nn

from pixelbert_plugin.build import Start, build_builders, build_model, build_task, starting_checkpoint
from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.distributed.processes import Processes, is_restarted, job_id
from pixelbert_plugin.precision import native as precision
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.training.run_folder import RunFolder
from pixelbert_plugin.training.stop import StopSignal


@dataclass
class Parts:
    """What `run` has built, for the steps below."""

    config: RunConfig
    console: Console
    device: torch.device
    processes: Processes
    stop: StopSignal
    folder: RunFolder
    checkpoints: Checkpoints
    builders: dict[str, Builder]
    data: dict[str, Mixture]  # by split
    task: Task
    processors: dict[str, Any]  # text, image, answers
    model: nn.Module
    precision: Precision
    loaders: dict[str, Loader] = field(default_factory=dict)  # for evaluation, by "split/dataset"
    is_task_fit: bool = False


def prepare(
    config: RunConfig,
    console: Console,
    device: torch.device,
    processes: Processes,
    stop: StopSignal,
    folder: RunFolder,
) -> tuple[Parts, Start]:
    """Claim the run's folder, choose its checkpoint and build data, task and model, the main process first."""
    is_training, is_again = "train" in config.splits(), is_restarted()
    may_hold_run = not is_training or config.checkpoint.resume or config.env.overwrite or is_again
    if processes.on_main(lambda: folder.claim(may_hold_run, is_training, job_id())) or is_again:  # restarted by torchrun
        config.checkpoint.resume, config.env.overwrite = True, False
    checkpoints = Checkpoints(folder.path / "checkpoints", config.checkpoint.max_to_keep, processes)
    path, key = processes.on_main(lambda: starting_checkpoint(config, checkpoints))
    content = processes.on_main(lambda: restore.read_content(path, key)) if path else {}
    start = Start(path, key, content)

    def build() -> Parts:
        builders = build_builders(config)
        data = {split: Mixture.build(builders, split) for split in config.splits()}
        task, processors = build_task(config, builders, data, start)
        model = build_model(config, task, processors).to(device)
        numbers = precision.choose(config, device)
        return Parts(
            config, console, device, processes, stop, folder, checkpoints, builders, data, task, processors, model, numbers
        )

    return processes.main_first(build), start


def used(parts: Parts) -> dict[str, str]:
    """What the run computes with, as far as the configuration leaves it open."""
    processes = parts.processes.world_size
    parallel = parts.config.training.parallel if processes > 1 else "none"
    return {**parts.precision.description, "device": str(parts.device), "parallel": parallel, "processes": str(processes)}
