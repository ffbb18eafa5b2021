"""What `pixelbert-plan` is told beside the configuration."""

import re
from dataclasses import dataclass
from typing import Literal

from pixelbert_plugin.registry.schema import require

UTILIZATION = 0.35  # of the data sheet's rate: assumed, as nothing was measured


@dataclass(kw_only=True)
class PlanConfig:
    gpus: str  # number x card, such as 8xH100 or 1xA100-80; any other card as 4x48GB@360: GB of memory, TFLOP/s
    price_per_gpu_hour: float | None = None  # in any currency. None: no cost is reckoned
    utilization: float | None = None  # share of the data sheet's rate that is kept up. None: 0.35, which is assumed
    rate: float | None = None  # TFLOP/s of one GPU, measured (benchmarks/gpu.py), in place of the two
    samples: int | None = None  # training samples of an epoch. None: those of the data where they are, else the official number
    image_size: str | None = None  # height x width of the files, in pixels. None: of the data where they are, else 480x640
    tokens: int = 16  # of a text, [CLS] and [SEP] included, for operations; memory is reckoned for max_length
    answers: int = 3129  # outputs for VQA where the data that they are counted in are not there (VQA 2.0's, paper)
    format: Literal["table", "json"] = "table"  # what is printed

    def check(self) -> None:
        require(self, "price_per_gpu_hour", low=0)
        require(self, "utilization", above=0, high=1)
        require(self, "rate", above=0)
        require(self, "samples", low=1)
        require(self, "tokens", low=3)
        require(self, "answers", low=2)
        if self.rate is not None and self.utilization is not None:
            raise ValueError("utilization: rate is measured, and has the utilization in it; give one of the two")
        if self.image_size is not None and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", self.image_size):
            raise ValueError("image_size: write height x width in pixels, such as 480x640")

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """`image_size` in pixels."""
        if self.image_size is None:
            return None
        height, _, width = self.image_size.partition("x")
        return int(height), int(width)
