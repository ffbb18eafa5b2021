"""The options of the methods here, by themselves, so that they are read and checked without torch."""

from dataclasses import dataclass
from typing import Literal

from pixelbert_plugin.registry.schema import require


@dataclass(kw_only=True)
class RolloutConfig:
    residual: float = 0.5  # share, in 0…1, that the residual path has of each layer's output; Abnar and Zuidema: 0.5

    def check(self) -> None:
        require(self, "residual", low=0, high=1)


@dataclass(kw_only=True)
class IntegratedGradientsConfig:
    num_steps: int = 20  # points of the path at which the gradient is taken (Gauss-Legendre); captum: 50
    baseline: Literal["mean", "black"] = (
        "mean"  # where the path begins: the mean colour of the training's normalisation, or black
    )
    images_at_once: int = 4  # points that go through the model together: memory against time
    blur: float = 0.02  # sigma of the Gaussian that smooths the map, of the image's longer side; 0: none

    def check(self) -> None:
        require(self, "num_steps", "images_at_once", low=1)
        require(self, "blur", low=0, high=1)
