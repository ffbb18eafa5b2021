"""Evaluation keyed by sample id: every sample of the split counts once, whatever the batches were."""

import logging
from dataclasses import dataclass, field

import torch
from torch import nn

from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.engine.precision import Fp32
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.tasks.base import Result, Task

logger = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """An evaluation of one split of one data set."""

    metrics: dict[str, float]
    results: list[Result]  # in the split's order; skipped images' samples are left out
    predicted: list[Result] = field(default_factory=list)  # with them: a submission wants an answer to every question


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, loader: Loader, batch_size: int, precision: Fp32) -> Evaluation:
    """Run the model over every sample; skipped images' samples are left out, and counted in the metrics.

    Raises RuntimeError if the number of results is not the split's: then a figure would be wrong.
    """
    was_training = model.training
    model.eval()
    by_id: dict[int | str, Result] = {}
    skipped: dict[int | str, Result] = {}
    for batch in loader.evaluate(batch_size):
        with precision.autocast():
            output = model(batch)
        for result, weight in zip(task.predict(output, batch), batch.weights.tolist(), strict=True):
            (by_id if weight else skipped)[result.sample.sample_id] = result
    model.train(was_training)
    if len(by_id) + len(skipped) != len(loader.mixture):
        raise RuntimeError(f"{len(loader.mixture)} samples in the split, but {len(by_id)} predicted and {len(skipped)} skipped")
    if not by_id:
        raise UserError(f"the {loader.mixture.split} split: every image was skipped as unreadable; check the images' folder")
    ids = [sample.sample_id for sample in loader.mixture]
    results = [by_id[sample_id] for sample_id in ids if sample_id in by_id]
    metrics = task.metrics(results)
    if skipped:
        metrics["num_skipped"] = float(len(skipped))
    return Evaluation(metrics, results, [by_id.get(sample_id) or skipped[sample_id] for sample_id in ids])
