"""What the engine asks of a task. B samples of a micro-batch, R texts (see types.py)."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from pixelbert_plugin.types import Batch, ModelOutput, Sample


@dataclass
class Result:
    """One sample's evaluation: what was predicted, what is true, and the scores that `metrics` makes figures of."""

    sample: Sample
    prediction: str
    truth: str | None  # None where the split has no answers
    scores: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """A registered task: built with its Config and the run's processors.

    One with a baseline has `fit(train_samples)` too, called before an evaluation of a split with answers. One that does not
    suit every data set says so: `images_per_sample`, how many images it needs; `needs_answers`, whether it learns answers.
    """

    main_metric: str  # chooses checkpoints/best on the validation split
    processors: tuple[str, ...]  # which of the config's processors it needs
    num_negatives: int  # texts of other images that every sample is given beside its own
    pairs_per_sample: int  # how many of training.batch_size's pairs one sample is

    def heads(self) -> dict[str, int]:
        """The model's heads this task needs, by name, with their number of outputs."""

    def prepare(self, batch: Batch, seeds: list[int]) -> None:
        """In a worker: set `batch.targets`, what `loss` compares with, from `batch.samples` (B), which stay there; mask words.
        Draws are functions of `seeds` (B)."""

    def loss(self, output: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """By part of the loss: its sum over the micro-batch, already times its weight. Each divides by its `counts`."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """By part of the loss: how many terms its sum has, so that micro-batches add up to the mean of the update."""

    def predict(self, output: ModelOutput, batch: Batch) -> list[Result]:
        """One result per sample; `batch.samples` has them."""

    def metrics(self, results: list[Result]) -> dict[str, float]:
        """Metrics over a whole split, each sample once."""

    def predictions(self, results: list[Result]) -> tuple[str, str]:
        """The predictions file in the data set's official format: its suffix (".json", ".csv") and its text."""


class MatchingTask(Protocol):
    """A task that is evaluated by scoring every image-text pair of a split; else as `Task`, without predictions."""

    scores_all_pairs: bool  # True
    max_val_images: int | None  # how many images a validation while training scores; None: all
    max_test_images: int | None  # how many images a final evaluation scores; None: all

    def scores(self, logits: dict[str, Tensor]) -> Tensor:
        """Q float32 from the [CLS] heads' logits, higher for better matches."""

    def matrix_metrics(self, scores_IT: np.ndarray, image_of_text_T: np.ndarray) -> dict[str, float]:
        """Metrics of the matrix of scores."""
