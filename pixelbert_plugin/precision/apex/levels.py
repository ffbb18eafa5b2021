"""Apex's optimization levels O0 to O3: what each means, and the same with torch's own means where `apex.amp` is not there."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pixelbert_plugin import registry
from pixelbert_plugin.precision.loss_scale import LossScale
from pixelbert_plugin.precision.master_weights import cast_to_half, full_weights
from pixelbert_plugin.precision.native import Scaled
from pixelbert_plugin.precision.options import ApexConfig
from pixelbert_plugin.registry.schema import ConfigError

LARGEST_SCALE = 2.0**24  # amp.initialize's max_loss_scale


@dataclass(kw_only=True)
class Level:
    """A level with the configuration's overrides applied."""

    name: str
    key: str  # of the option that names it
    has_half_weights: bool
    autocasts: bool
    keeps_norms: bool
    has_masters: bool
    loss_scale: float | None  # fixed factor; None: dynamic


def resolve(config: ApexConfig) -> Level:
    """The level's defaults as Apex documents them, and the overrides that are not None."""
    has_half_weights, is_o2 = config.opt_level in ("O2", "O3"), config.opt_level == "O2"
    scale = config.loss_scale
    if scale is None:
        scale = "dynamic" if config.opt_level in ("O1", "O2") else 1.0
    return Level(
        name=config.opt_level,
        key=registry.key_of(config, "opt_level"),
        has_half_weights=has_half_weights,
        autocasts=config.opt_level == "O1",
        keeps_norms=is_o2 if config.keep_batchnorm_fp32 is None else config.keep_batchnorm_fp32,
        has_masters=has_half_weights and (is_o2 if config.master_weights is None else config.master_weights),
        loss_scale=None if scale == "dynamic" else float(scale),
    )


def check_eps(level: Level, optimizers: dict[str, Optimizer]) -> None:
    """Refuse an Adam whose eps is 0 in float16 where it steps float16 weights: it would divide by 0. Raises ConfigError."""
    if not level.has_half_weights or level.has_masters:
        return
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            eps = group.get("eps")
            if eps is not None and torch.tensor(eps).half() == 0 and any(p.dtype == torch.half for p in group["params"]):
                raise ConfigError(
                    f"optimizer.{name}.params.eps",
                    f"{eps:g} is 0 in float16, whose weights {level.key}={level.name} steps without "
                    "float32 masters; set it to 1e-4, or use opt_level=O2 with master_weights",
                )


class NativeLevel(Scaled):
    """A level by torch's own means: float16 autocast for O1, float16 weights for O2 and O3, float32 masters for O2."""

    def __init__(self, level: Level, device: torch.device, reason: str):
        """`reason`: why it is not Apex itself."""
        is_dynamic = level.loss_scale is None
        fixed: dict[str, Any] = {} if is_dynamic else {"initial": level.loss_scale}
        largest = LARGEST_SCALE if is_dynamic else math.inf
        super().__init__(device, LossScale(**fixed, is_dynamic=is_dynamic, largest=largest))
        self.level = level
        self.reason = reason

    @property
    def description(self) -> dict[str, str]:
        return {"precision": "apex", "opt_level": self.level.name, "backend": "native", "reason": self.reason}

    def prepare(self, model: nn.Module, optimizers: dict[str, Optimizer]) -> None:
        """Raises ConfigError for an eps that float16 does not hold."""
        if not self.level.has_half_weights:
            return
        before = full_weights(model) if self.level.has_masters and optimizers else {}
        cast_to_half(model, self.level.keeps_norms)
        check_eps(self.level, optimizers)
        self.masters.remember(before)
        self.masters.give_to(optimizers.values())

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.float16) if self.level.autocasts else nullcontext()
