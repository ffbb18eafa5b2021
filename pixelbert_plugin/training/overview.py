"""What a training begins with, as one table: data, parameters, batch, length, precision, device and where to watch it."""

import shlex
from collections import Counter

import torch
from rich.markup import escape
from rich.table import Table
from torch import nn

from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.parts import Parts, used
from pixelbert_plugin.training.length import Length, samples_of


def overview(parts: Parts, epoch_samples: int, update: int = 0, position: int = 0, trackers: tuple[str, ...] = ()) -> Table:
    """`epoch_samples`: of an epoch of training; `update` and `position`: where it begins; `trackers`: their names."""
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")

    def add(what: str, value: str) -> None:
        table.add_row(escape(what), escape(value))

    for split, mixture in parts.data.splits.items():
        for name, samples in mixture.parts.items():
            add(f"{split}: {name}", f"{len(samples):,} samples of {samples.num_images:,} images")
    table.add_section()
    numbers, frozen = parameters(parts.model)
    for name, number in numbers.items():
        is_frozen = f", {frozen[name]:,} of them frozen" if 0 < frozen[name] < number else ", frozen" if frozen[name] else ""
        add(f"parameters: {name}", f"{number:,}{is_frozen}")
    add("parameters in all", f"{sum(numbers.values()):,}, {sum(numbers.values()) - sum(frozen.values()):,} trained")
    table.add_section()
    options, processes = parts.training, parts.job.processes.world_size
    add("batch", batch(options, processes))
    samples_of_update, _ = samples_of(options, parts.task.pairs_per_sample)
    length = Length.of(options, epoch_samples, samples_of_update)
    updates = length.total_updates(update, position)
    begun = f", {update:,} of them done" if update else ""
    add(
        "length",
        f"{updates:,} updates{begun}; an epoch is {epoch_samples:,} samples, {epoch_samples / samples_of_update:,.1f} updates",
    )
    values = used(parts)
    add("precision", " ".join(value for name, value in values.items() if name not in ("device", "parallel", "processes")))
    card = f" ({torch.cuda.get_device_name(parts.job.device)})" if parts.job.device.type == "cuda" else ""
    parallel = f", {processes} processes, {values['parallel']}" if processes > 1 else ""
    add("device", f"{parts.job.device}{card}{parallel}")
    table.add_section()
    path = parts.job.folder.path
    add("folder", str(path))
    if trackers:
        add("trackers", ", ".join(trackers))
    if "tensorboard" in trackers:
        add("watch it with", f"tensorboard --logdir {shlex.quote(str(path / 'tensorboard'))}")
    return table


def parameters(model: nn.Module) -> tuple[dict[str, int], Counter[str]]:
    """How many the model's own parts have, by name, and how many of these are not trained. A shared one counts once."""
    numbers: Counter[str] = Counter()
    frozen: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        numbers[part] += parameter.numel()
        frozen[part] += 0 if parameter.requires_grad else parameter.numel()
    return dict(numbers), frozen


def batch(options: TrainingConfig, processes: int) -> str:
    """How the pairs of an update are put through the model."""
    share = -(-options.batch_size // processes)
    micro = min(options.micro_batch_size or share, share)
    times = -(-share // micro)
    each = f", on each of {processes} processes" if processes > 1 else ""
    return f"{options.batch_size:,} pairs an update: {times:,} × {micro:,} pairs{each}"
