"""What the engine asks of a task. B pairs of a micro-batch."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from pixelbert_plugin.types import Batch, ModelOutput, Sample


@dataclass
class Result:
    """One sample's evaluation: what was predicted, what is true, and its scores by metric in 0…1."""

    sample: Sample
    prediction: str
    truth: str | None  # None where the split has no answers
    scores: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """A registered task: built with its Config and the run's processors."""

    main_metric: str  # chooses checkpoints/best on the validation split
    processors: tuple[str, ...]  # which of the config's processors it needs

    def heads(self) -> dict[str, int]:
        """The model's heads this task needs, by name, with their number of outputs."""

    def targets(self, samples: list[Sample]) -> dict[str, Tensor]:
        """In a worker: what `loss` compares with. Tensors of B rows."""

    def fit(self, train_samples: Iterable[Sample]) -> None:
        """Before an evaluation: learn what a baseline needs from the training split."""

    def loss(self, output: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """By part of the loss: its sum over the micro-batch, already times its weight. Each divides by its `counts`."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """By part of the loss: how many terms its sum has, so that micro-batches add up to the mean of the update."""

    def predict(self, output: ModelOutput, batch: Batch) -> list[Result]:
        """One result per pair."""

    def metrics(self, results: list[Result]) -> dict[str, float]:
        """Metrics over a whole split, each sample once."""

    def prediction_rows(self, results: list[Result]) -> list[dict[str, Any]]:
        """The rows of the predictions file, in the data set's official format."""
