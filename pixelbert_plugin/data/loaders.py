"""The loaders of a run: what all of them share, said once."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.data.collate import read_positions
from pixelbert_plugin.data.image_features import ImageFeatures
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.negatives import Negatives
from pixelbert_plugin.data.reader import BatchReader
from pixelbert_plugin.data.workers import Wait
from pixelbert_plugin.interfaces import LearnedTask
from pixelbert_plugin.types import Batch


@dataclass(frozen=True)
class Loaders:
    """Makes a loader for any samples."""

    training: TrainingConfig
    cache: Path | None  # folder where image sizes are kept
    task: LearnedTask
    processors: dict[str, Any]
    device: torch.device
    rank: int = 0  # of this process
    world_size: int = 1  # processes that share the work
    wait: Wait = field(default_factory=Wait)  # for data
    features: ImageFeatures | None = None  # a frozen encoder's, where they are kept

    def of(self, mixture: Mixture, with_negatives: bool = True) -> Loader:
        """A loader of these samples, with the negatives that the task needs; without where all pairs are scored."""
        training, image = self.training, self.processors["image"]
        negatives = Negatives(mixture, self.task.num_negatives) if with_negatives and self.task.num_negatives else None
        return Loader(
            BatchReader(mixture, self.processors["text"], image, partial(prepare, self.task), training.seed, negatives),
            self.device,
            training.num_workers,
            mixture.resized_sizes(image, self.cache) if training.bucket_by_size else None,
            {name: weight for name, weight in training.dataset_weights.items() if name in mixture.parts},
            self.rank,
            self.world_size,
            self.wait,
            self.features,
        )


def prepare(task: LearnedTask, batch: Batch, seeds: list[int]) -> None:
    """In a worker: the task's part, and which hidden states its heads read."""
    task.prepare(batch, seeds)
    if task.reads_logits_only:
        batch.read_positions = read_positions(batch)
