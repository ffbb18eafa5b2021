"""Schedules of the learning rate by name. The paper: ÷10 at two epochs."""

from dataclasses import dataclass, field
from typing import Literal

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


@registry.register_scheduler("step")
class StepSchedule:
    """Linear warm-up, then the rate times gamma at each milestone: a function of the position alone."""

    Config = StepConfig

    def __init__(self, config: StepConfig):
        self.config = config

    def __call__(self, update: int, epoch: float) -> float:
        """Factor on the learning rates at `update` (counted from 1), which starts when `epoch` passes are done."""
        passed = epoch if self.config.unit == "epochs" else update - 1
        decay = self.config.gamma ** sum(passed >= milestone for milestone in self.config.milestones)
        warmup = self.config.warmup_updates
        return decay * (min(1.0, update / warmup) if warmup else 1.0)
