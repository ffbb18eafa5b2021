"""The options of a comparison, beside the keys of the runs' configurations."""

from dataclasses import dataclass
from typing import Literal

from pixelbert_plugin.registry.schema import FilePath, require


@dataclass(kw_only=True)
class CompareConfig:
    resamples: int = 2000  # of the bootstrap
    seed: int = 1  # of its draws
    confidence: float = 0.95  # share of intervals that hold the true value
    examples: int = 5  # samples shown on which the first run is better, and as many of another one
    picture: FilePath | None = None  # file of the curves, .png, .pdf or .svg. None: compare_A_B.png in the working folder
    format: Literal["text", "json"] = "text"  # json: numbers for a program

    def check(self) -> None:
        require(self, "resamples", low=10, high=1_000_000)
        require(self, "seed", low=0, high=2**63 - 1)
        require(self, "examples", low=0, high=1000)
        if not 0.5 <= self.confidence < 1:
            raise ValueError("confidence: must be at least 0.5 and below 1")
        if self.picture is not None and not self.picture.lower().endswith((".png", ".pdf", ".svg")):
            raise ValueError("picture: must end in .png, .pdf or .svg")
