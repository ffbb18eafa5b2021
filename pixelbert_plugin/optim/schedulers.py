"""Schedules of the learning rate by name. The paper: ÷10 at two epochs.

Each is a function of the position alone, so that a resume goes on exactly: of `update`, `epoch` and `progress`, the share of
the training that is done. Warm-up multiplies the rest, as torch's ChainedScheduler does with LinearLR.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from pixelbert_plugin import registry
from pixelbert_plugin.registry.schema import require


@dataclass(kw_only=True)
class StepConfig:
    milestones: list[float] = field(default_factory=list)  # where the rate is multiplied by gamma, in `unit`
    unit: Literal["epochs", "updates"] = "epochs"  # unit of milestones
    gamma: float = 0.1  # factor at each milestone (paper: ÷10)
    warmup_updates: int = 0  # updates over which the rate rises linearly from 0; the paper names none

    def check(self) -> None:
        require(self, "milestones", "warmup_updates", "gamma", low=0)
        if sorted(self.milestones) != self.milestones:
            raise ValueError("milestones: must ascend")


@dataclass(kw_only=True)
class ConstantConfig:
    warmup_updates: int = 0  # updates over which the rate rises linearly from 0

    def check(self) -> None:
        require(self, "warmup_updates", low=0)


@dataclass(kw_only=True)
class DecayConfig:
    final_factor: float = 0.0  # what the rate is multiplied by at the end of the training (max_updates or max_epochs)
    warmup_updates: int = 0  # updates over which the rate rises linearly from 0

    def check(self) -> None:
        require(self, "warmup_updates", low=0)
        require(self, "final_factor", low=0, high=1)


class WarmedUp:
    """Base of the schedules here: linear warm-up, times what a schedule's `decay` says."""

    def __init__(self, config: Any):
        self.config = config

    def __call__(self, update: int, epoch: float, progress: float = 0.0) -> float:
        """Factor on the learning rates at `update` (counted from 1), which starts when `epoch` passes and the share
        `progress` of the training (0…1) are done."""
        warmup = self.config.warmup_updates
        return self.decay(update, epoch, progress) * (min(1.0, update / warmup) if warmup else 1.0)

    def decay(self, update: int, epoch: float, progress: float) -> float:
        raise NotImplementedError


@registry.register_scheduler("step")
class StepSchedule(WarmedUp):
    """Linear warm-up, then the rate times gamma at each milestone: a function of the position alone."""

    Config = StepConfig

    def decay(self, update: int, epoch: float, progress: float) -> float:
        passed = epoch if self.config.unit == "epochs" else update - 1
        return self.config.gamma ** sum(passed >= milestone for milestone in self.config.milestones)


@registry.register_scheduler("constant")
class ConstantSchedule(WarmedUp):
    """Linear warm-up, then the rate as it is."""

    Config = ConstantConfig

    def decay(self, update: int, epoch: float, progress: float) -> float:
        return 1.0


@registry.register_scheduler("linear")
class LinearSchedule(WarmedUp):
    """Linear warm-up, times a line from 1 at the start to final_factor at the end: torch's LinearLR."""

    Config = DecayConfig

    def decay(self, update: int, epoch: float, progress: float) -> float:
        return 1 + (self.config.final_factor - 1) * progress


@registry.register_scheduler("cosine")
class CosineSchedule(WarmedUp):
    """Linear warm-up, times half a cosine from 1 at the start to final_factor at the end: torch's CosineAnnealingLR."""

    Config = DecayConfig

    def decay(self, update: int, epoch: float, progress: float) -> float:
        final = self.config.final_factor
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
