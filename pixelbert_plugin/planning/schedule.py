"""How long a run is, in updates, operations and hours, and what that costs."""

import math
from dataclasses import dataclass
from typing import Any, cast

from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.interfaces import MatchingTask, Task
from pixelbert_plugin.planning.lengths import Split
from pixelbert_plugin.planning.simulation import Evaluation
from pixelbert_plugin.training.length import Length

SECONDS = 3600
TERA = 10**12


@dataclass(frozen=True)
class Course:
    """What a training consists of."""

    epoch_samples: int
    updates: int
    samples: int  # of the whole training
    evaluations: int  # of val, while training

    @classmethod
    def of(cls, config: RunConfig, epoch_samples: int, pairs_per_sample: int) -> "Course":
        training = config.training
        batch_samples = training.batch_size // pairs_per_sample
        length = Length.of(training, epoch_samples, batch_samples)
        updates = length.total_updates()
        samples = min(
            updates * batch_samples, int(min(length.end, math.inf)) if training.max_epochs else updates * batch_samples
        )
        if "val" not in config.splits():
            return cls(epoch_samples, updates, samples, 0)
        in_updates, in_epochs = training.evaluation_every
        evaluations = 1  # after the last update
        if in_epochs is not None:
            evaluations = max(1, math.ceil(round(samples / epoch_samples / in_epochs, 6)))
        elif in_updates is not None:
            evaluations = max(1, math.ceil(updates / in_updates))
        return cls(epoch_samples, updates, samples, evaluations)


def evaluated(task: Task, evaluation: Evaluation, split: Split, is_final: bool, is_val: bool) -> tuple[float, int]:
    """The operations of evaluating a data set's split, and how many pairs or samples are scored."""
    if not task.scores_all_pairs:
        return evaluation.operations * split.samples, split.samples
    matching = cast(MatchingTask, cast(Any, task))
    limit = matching.max_test_images if is_final else matching.max_val_images if is_val else None
    images = split.images or split.samples
    chosen = min(images, limit or images)
    pairs = chosen * round(chosen * split.samples / images)
    return evaluation.operations * pairs + evaluation.operations_per_image * chosen, pairs


@dataclass(frozen=True)
class Hours:
    """Of wall-clock time, and the price of the GPUs meanwhile."""

    training: float
    evaluation: float
    price: float | None

    @classmethod
    def of(cls, training: float, evaluation: float, tflops: float, gpus: int, price_per_gpu_hour: float | None) -> "Hours":
        """From the operations of both, of all GPUs together, at `tflops` of each."""
        rate = tflops * TERA * gpus * SECONDS
        hours = training / rate, evaluation / rate
        price = None if price_per_gpu_hour is None else sum(hours) * gpus * price_per_gpu_hour
        return cls(*hours, price)

    @property
    def total(self) -> float:
        return self.training + self.evaluation
