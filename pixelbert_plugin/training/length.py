"""How long a training is and what is due when, counted in samples: another batch size, other weights of the data sets or
other data change the length of no epoch.

A position is the samples consumed since the start, as if every epoch had had as many as one has now. An epoch's last update
may be short.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.interfaces import Scheduler

logger = logging.getLogger(__name__)


def progress(update: int, epoch: float, max_updates: int | None, max_epochs: float | None) -> float:
    """The share of the training that is done, in 0…1, when `update` (counted from 1) starts and `epoch` passes are done."""
    shares = [(update - 1) / max_updates] if max_updates else []
    shares += [epoch / max_epochs] if max_epochs else []
    return min(1.0, max(shares, default=0.0))


def over_training(schedule: Scheduler, options: TrainingConfig) -> Callable[[int, float], float]:
    """A schedule that knows how long the training is: the factor at an update and epoch."""

    def factor(update: int, epoch: float) -> float:
        return schedule(update, epoch, progress(update, epoch, options.max_updates, options.max_epochs))

    return factor


def samples_of(options: TrainingConfig, pairs_per_sample: int) -> tuple[int, int | None]:
    """Of an update over all processes, and of a micro-batch of one (None: its whole share). Both options count pairs, of which
    a sample may be several."""
    micro = options.micro_batch_size and max(1, options.micro_batch_size // pairs_per_sample)
    return options.batch_size // pairs_per_sample, micro


@dataclass(frozen=True)
class Length:
    """Where a training ends: at the earlier of `max_updates` and `max_epochs`."""

    epoch_samples: int
    batch_samples: int  # of an update, over all processes
    max_updates: int | None = None
    max_epochs: float | None = None

    @classmethod
    def of(cls, options: TrainingConfig, epoch_samples: int, batch_samples: int) -> "Length":
        return cls(epoch_samples, batch_samples, options.max_updates, options.max_epochs)

    @property
    def end(self) -> float:
        """The position after which `max_epochs` are done."""
        if self.max_epochs is None:
            return math.inf
        return max(1, math.ceil(round(self.max_epochs * self.epoch_samples, 6)))  # 1.1 · 10 is a little more than 11

    def is_over(self, update: int, position: int) -> bool:
        return position >= self.end or (self.max_updates is not None and update >= self.max_updates)

    def total_updates(self, update: int = 0, position: int = 0) -> int:
        """How many updates it will have been, after `update` of them and at `position`."""
        limits = [] if self.max_updates is None else [max(update, self.max_updates)]
        if self.max_epochs is not None:
            limits.append(update + self._updates_between(position, int(self.end)))
        return min(limits)

    def _updates_between(self, position: int, end: int) -> int:
        if end <= position:
            return 0
        per_epoch = math.ceil(self.epoch_samples / self.batch_samples)
        first, last = position // self.epoch_samples, (end - 1) // self.epoch_samples
        if first == last:
            return math.ceil((end - position) / self.batch_samples)
        rest = math.ceil(((first + 1) * self.epoch_samples - position) / self.batch_samples)
        return rest + (last - first - 1) * per_epoch + math.ceil((end - last * self.epoch_samples) / self.batch_samples)

    def is_due(self, every_updates: int | None, every_epochs: float | None, update: int, before: int, position: int) -> bool:
        """Whether the update that led from `before` to `position` reached a multiple of either interval."""
        if every_epochs is not None:
            step = every_epochs * self.epoch_samples
            return math.floor(round(position / step, 9)) > math.floor(round(before / step, 9))
        return every_updates is not None and update % every_updates == 0


def carried_over(position: int, former_epoch_samples: int, epoch_samples: int) -> int:
    """The position at the same place of the same epoch, where an epoch has another number of samples than it had."""
    epoch, done = divmod(position, former_epoch_samples)
    return epoch * epoch_samples + round(done / former_epoch_samples * epoch_samples)


def go_on(state: TrainState, epoch_samples: int) -> None:
    """Let `state` count its position by today's epoch: at the same place of the same epoch, though that has another length."""
    if state.position is None:
        state.position = state.samples
    if state.epoch_samples not in (None, epoch_samples):
        state.position = carried_over(state.position, state.epoch_samples, epoch_samples)
        logger.warning(
            "an epoch has %d samples now, and had %d when the checkpoint was saved (the data or training.dataset_weights "
            "changed): training goes on at epoch %.2f",
            *(epoch_samples, state.epoch_samples, state.position / epoch_samples),
        )
    state.epoch_samples = epoch_samples
