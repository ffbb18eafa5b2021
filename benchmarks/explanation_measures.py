"""Measures of one map against a known truth, and maps that know nothing of the question. H W pixels of a picture.

All but the curves need no model. A map is H W float, larger is more.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from pixelbert_plugin.data.light import over_pixels

SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6)  # of a picture's pixels that are taken away, or put in; beside none and all


def hit(values_HW: np.ndarray, inside_HW: np.ndarray) -> bool:
    """Pointing game: whether the largest value lies inside. Of equal ones the first counts."""
    return bool(inside_HW.flat[int(values_HW.argmax())])


def energy(values_HW: np.ndarray, inside_HW: np.ndarray) -> float:
    """The share, in 0…1, of what is above 0 that lies inside; of a map without any the share of the area, as of an even one."""
    positive = values_HW.clip(min=0).astype(np.float64)
    total = float(positive.sum())
    return float(positive[inside_HW].sum()) / total if total > 0 else float(inside_HW.mean())


def tells_apart(values_HW: np.ndarray, inside_HW: np.ndarray, others: Sequence[np.ndarray]) -> bool | None:
    """Whether the mean inside is larger than in each of the other figures' boxes; None where there is no other."""
    return all(values_HW[inside_HW].mean() > values_HW[other].mean() for other in others) if others else None


def replaced(picture_HW3: np.ndarray, ground_HW3: np.ndarray, values_HW: np.ndarray) -> list[np.ndarray]:
    """The pictures whose most important pixels, by SHARES, are the ground's (deletion); then the grounds whose most important
    ones are the picture's (insertion)."""
    order = np.argsort(-values_HW, axis=None, kind="stable")
    found = []
    for below, above in ((picture_HW3, ground_HW3), (ground_HW3, picture_HW3)):
        for share in SHARES:
            chosen = np.zeros(values_HW.size, dtype=bool)
            chosen[order[: round(share * values_HW.size)]] = True
            found.append(np.where(chosen.reshape(values_HW.shape)[..., None], above, below))
    return found


def area(first: float, between: Sequence[float], last: float) -> float:
    """Under the curve of an answer's probability over the share of pixels, 0…1, by trapezoids."""
    return float(torch.trapezoid(torch.tensor([first, *between, last]), torch.tensor([0.0, *SHARES, 1.0])))


def baselines(picture_HW3: np.ndarray, seed: int, cells: int) -> dict[str, np.ndarray]:
    """Maps by rules: numbers at random in as many cells as the model has, a hill in the centre, and how much a pixel differs
    from the picture's median colour, which shows all figures, whatever is asked."""
    height, width = picture_HW3.shape[:2]
    noise = torch.from_numpy(np.random.default_rng(seed).random((cells, cells)))
    rows, columns = np.mgrid[0:height, 0:width]
    across, down = (columns + 0.5) / width - 0.5, (rows + 0.5) / height - 0.5
    colors = picture_HW3.astype(np.float64)
    contrast = np.abs(colors - np.median(colors, axis=(0, 1))).sum(-1)
    return {
        "random": over_pixels(noise, (height, width)).numpy(),
        "centre": np.exp(-(across**2 + down**2) / (2 * 0.25**2)),
        "contrast": smoothed(contrast, 1.0),
    }


def smoothed(values_HW: np.ndarray, sigma: float) -> np.ndarray:
    """By a Gaussian of `sigma` pixels."""
    steps = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    kernel = np.exp(-((steps / sigma) ** 2) / 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        values_HW = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), axis, values_HW)
    return values_HW
