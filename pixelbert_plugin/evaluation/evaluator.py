"""Evaluation keyed by sample id: every sample of the split counts once, whatever the batches and the processes were."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.distributed.parallel import share_buffers, whole
from pixelbert_plugin.distributed.processes import ALONE, Processes
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.interfaces import LearnedTask
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.registry import returned
from pixelbert_plugin.registry.schema import ConfigError, nearest
from pixelbert_plugin.tasks.base import Result, Task
from pixelbert_plugin.types import Batch, ModelOutput

T = TypeVar("T")
Sums = dict[str, tuple[float, float]]  # by part of a loss: a sum, and how many terms it has
logger = logging.getLogger(__name__)


@dataclass
class SplitEvaluation:
    """An evaluation of one split of one data set. Only the main process has the results."""

    metrics: dict[str, float]
    results: list[Result] = field(default_factory=list)  # in the split's order; skipped images' samples are left out
    predicted: list[Result] = field(default_factory=list)  # with them: a submission wants an answer to every question


@dataclass(frozen=True)
class SentResult:
    """A result on its way to the main process, which has the sample itself."""

    sample_id: int | str
    prediction: str
    truth: str | None
    scores: dict[str, float]
    is_skipped: bool
    rows: list[dict[str, str]]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    loader: Loader,
    batch_size: int,
    precision: Precision,
    processes: Processes = ALONE,
    with_loss: bool = False,
) -> SplitEvaluation:
    """Run the model over every sample, each process over its share of the batches; called in every process.

    `with_loss`: the metrics have the task's loss too, `loss`, and each part of it where it has several, `loss_mlm`.

    Skipped images' samples are left out, and counted in the metrics. Raises RuntimeError if the number of results is not
    the split's: then a figure would be wrong.
    """
    was_training = model.training
    model.eval()
    share_buffers(model, processes)
    rows: list[SentResult] = []
    sums: list[Sums] = []
    with whole(model):
        for batch in loader.evaluate(batch_size):
            with precision.autocast():
                output = model(batch)
            results = ask(task, partial(task.predict, output, batch))
            returned.results(task, results, batch)
            if with_loss:
                sums.append(ask(task, partial(_loss_of, task, output, batch)))
            for result, weight in zip(results, batch.weights.tolist(), strict=True):
                sample_id = result.sample.sample_id
                rows.append(SentResult(sample_id, result.prediction, result.truth, result.scores, not weight, result.rows))
    model.train(was_training)
    gathered, sums_of = processes.gather(rows), processes.gather(sums)
    evaluation: list[SplitEvaluation] = []

    def compute() -> dict[str, float]:
        evaluation.append(_from_rows(task, loader, list(chain.from_iterable(gathered or []))))
        evaluation[0].metrics |= _mean_losses(chain.from_iterable(sums_of or []))
        return evaluation[0].metrics

    metrics = processes.on_main(compute)
    return evaluation[0] if evaluation else SplitEvaluation(metrics)


def _from_rows(task: Task, loader: Loader, rows: list[SentResult]) -> SplitEvaluation:
    """Metrics over the split, each sample once, in its order."""
    by_id = {row.sample_id: row for row in rows}
    skipped = {sample_id for sample_id, row in by_id.items() if row.is_skipped}
    if len(rows) != len(loader.mixture) or len(by_id) != len(rows):
        raise RuntimeError(f"{len(loader.mixture)} samples in the split, but {len(rows)} results of {len(by_id)} samples")
    if len(skipped) == len(by_id):
        raise UserError(f"the {loader.mixture.split} split: every image was skipped as unreadable; check the images' folder")
    predicted = []
    for sample in loader.mixture:
        row = by_id[sample.sample_id]
        predicted.append(Result(sample, row.prediction, row.truth, row.scores, row.rows))
    results = [result for result in predicted if result.sample.sample_id not in skipped]
    metrics = ask(task, lambda: plain(task.metrics(results)))
    if skipped:
        metrics["num_skipped"] = float(len(skipped))
    return SplitEvaluation(metrics, results, predicted)


def _loss_of(task: LearnedTask, output: ModelOutput, batch: Batch) -> "Sums":
    """By part of the loss: its sum over the batch, and how many terms that has."""
    losses, counts = task.loss(output, batch), task.counts(batch)
    return {part: (float(loss), float(counts[part])) for part, loss in losses.items()}


def _mean_losses(sums: Iterable[Sums]) -> dict[str, float]:
    """The mean of each part over all batches, in whatever order, and their sum; {} without any."""
    by_part: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for batch in sums:
        for part, pair in batch.items():
            by_part[part].append(pair)
    totals = {part: [math.fsum(values) for values in zip(*pairs, strict=True)] for part, pairs in by_part.items()}
    means = {part: total / max(count, 1) for part, (total, count) in totals.items()}
    parts = {f"loss_{part}": mean for part, mean in means.items()} if len(means) > 1 else {}
    return {"loss": sum(means.values()), **parts} if means else {}


def ask(task: LearnedTask, work: Callable[[], T]) -> T:
    """What a task's predictions or metrics come to. Raises UserError with the place of the task where they fail."""
    try:
        return work()
    except RunError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise UserError(
            f"the task's predictions or metrics failed ({registry.location(type(task))}): {reason}; --debug shows where"
        ) from error


def plain(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as numbers that JSON has, whatever numpy or torch made of them. Raises ValueError or TypeError for others."""
    return {str(name): float(value) for name, value in metrics.items()}


def check_monitor(monitor: str, metrics: Iterable[str]) -> None:
    """Raise ConfigError where the metric that chooses the best checkpoint is not among those of an evaluation."""
    known = list(metrics)
    if monitor not in known:
        raise ConfigError("training.early_stop.monitor", f"{monitor!r}: no such metric{nearest(monitor, known)}")
