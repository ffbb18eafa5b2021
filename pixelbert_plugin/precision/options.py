"""The options of the precisions and Apex's optimizers here, by themselves, so that they are read and checked without torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pixelbert_plugin.optim.options import AdamWConfig
from pixelbert_plugin.registry.schema import require


@dataclass(kw_only=True)
class Fp16Config:
    init_scale: float = 65536.0  # factor on the loss at the start; 2^16, as torch.amp.GradScaler
    growth_interval: int = 2000  # updates in a row with finite gradients before the factor is doubled; GradScaler's

    def check(self) -> None:
        require(self, "init_scale", above=0, high=2.0**100)
        require(self, "growth_interval", low=1)


@dataclass(kw_only=True)
class ApexConfig:
    opt_level: Literal["O0", "O1", "O2", "O3"] = "O1"  # O0 float32, O1 casts per operation, O2 half weights, O3 pure half
    loss_scale: str | int | float | None = None  # dynamic, or a fixed factor. None: dynamic for O1 and O2, 1 for O0 and O3
    keep_batchnorm_fp32: bool | None = None  # batch norms in float32 where weights are half. None: O2 true, O3 false
    master_weights: bool | None = None  # float32 masters of half weights. None: O2 true, O3 false
    backend: Literal["auto", "apex", "native"] = "auto"  # apex: NVIDIA's or an error; auto: native where it is not usable

    def check(self) -> None:
        for name in ("keep_batchnorm_fp32", "master_weights"):
            if self.opt_level == "O1" and getattr(self, name) is not None:
                raise ValueError(f"{name}: opt_level O1 leaves weights and batch norms float32; leave it out, or use O2")
        if self.loss_scale in (None, "dynamic"):
            return
        try:
            factor = float(self.loss_scale)
        except ValueError:
            factor = math.nan
        if not 0 < factor < math.inf:
            raise ValueError("loss_scale: must be dynamic or a number above 0")


@dataclass(kw_only=True)
class LambConfig(AdamWConfig):
    eps: float = 1e-6  # Apex's
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # Apex's
