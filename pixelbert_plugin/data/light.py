"""Pictures in their own light: as they are where a map is large, darker where it is less. H W pixels; R C a map's cells, whose
centres lie at 0…1 of a side, ascending."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Centres = tuple[list[float], list[float]]  # of R rows and of C columns

DARKEST = 0.25  # of its own light, where the share is 0


def in_light(picture_3HW: Tensor, share_HW: Tensor) -> Tensor:
    """3 H W uint8: the picture, each pixel by its share of 0…1."""
    return (picture_3HW * (DARKEST + (1 - DARKEST) * share_HW)).round().clamp(0, 255).to(torch.uint8)


def over_pixels(values_RC: Tensor, size: tuple[int, int], centres: Centres | None = None) -> Tensor:
    """H W float32: the cells laid over so many pixels, linear between their centres, the outer ones going on to the edge. None:
    the centres lie evenly."""
    down, across = centres or _evenly(tuple(values_RC.shape))
    return _weights(down, size[0]) @ values_RC.float() @ _weights(across, size[1]).T


def _weights(centres: Sequence[float], pixels: int) -> Tensor:
    """pixels × cells float32: the share that each cell has of each pixel of a side."""
    found = np.zeros((pixels, len(centres)))
    at = (np.arange(pixels) + 0.5) / pixels
    for cell in range(len(centres)):
        found[:, cell] = np.interp(at, centres, np.eye(len(centres))[cell])
    return torch.from_numpy(found).float()


def nearest_cells(values_RC: Tensor, size: tuple[int, int], centres: Centres | None = None) -> Tensor:
    """H W: each pixel has the value of the cell whose centre is the nearest, of two alike the first. None: they lie evenly."""
    places = []
    for of_cells, pixels in zip(centres or _evenly(tuple(values_RC.shape)), size, strict=True):
        at = (np.arange(pixels) + 0.5) / pixels
        places.append(torch.from_numpy(np.abs(at[:, None] - np.asarray(of_cells)).argmin(1)))
    return values_RC[places[0]][:, places[1]]


def _evenly(shape: tuple[int, ...]) -> Centres:
    down, across = ([(place + 0.5) / count for place in range(count)] for count in shape)
    return down, across
