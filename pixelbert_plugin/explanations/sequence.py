"""What the methods on the transformer's attention share: the model's weights of attention, and rows of a matrix over the
sequence as maps of the images.

N images of the text, each with a sequence of its own; h heads, S = L + K: L tokens, then K pixels; W words; rows × columns the
grid of the CNN's pixels.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.types import ExplanationInput, ExplanationMap, ModelOutput


def attended(given: ExplanationInput) -> tuple[ModelOutput, tuple[Tensor, ...]]:
    """The model's output and each layer's weights, N h S S. Raises UserError where the model gives none."""
    with given.autocast():
        output: ModelOutput = given.model(given.batch, return_attentions=True)
    if not output.attentions:
        raise UserError("explain: the text encoder gave no attention weights")
    return output, output.attentions


def rolled(layers_NSS: Sequence[Tensor]) -> Tensor:
    """N S S: R ← R + A R over the layers' matrices A from the first on, R the unit matrix at the start."""
    first = layers_NSS[0]
    found_NSS = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device).expand_as(first)
    for matrix_NSS in layers_NSS:
        found_NSS = found_NSS + matrix_NSS @ found_NSS
    return found_NSS


def maps_of(matrix_NSS: Tensor, given: ExplanationInput, output: ModelOutput) -> list[ExplanationMap]:
    """Of each image: what stands in the row of the token that the answer is read at, and in those of each word's tokens, at the
    image's own pixels. A row is who looks, a column at what."""
    length, looks = given.batch.input_ids.shape[1], cast(Model, given.model).grid_centres
    sizes_N2 = cast(Tensor, given.batch.image_sizes)[given.batch.image_index[0].cpu()].tolist()
    found = []
    for matrix_SS, places_K, mask_K, size in zip(matrix_NSS, output.pixel_positions, output.pixel_mask, sizes_N2, strict=True):
        rows = on_pixels(matrix_SS, [[given.read_at], *given.words], length, places_K, mask_K, output.grid[1]).cpu()
        found.append(ExplanationMap(answer=rows[0], words=rows[1:], centres=centres(looks, tuple(rows.shape[1:]), size)))
    return found


def centres(
    looks: tuple[float, float] | None, shape: tuple[int, ...], size: Sequence[int]
) -> tuple[list[float], list[float]] | None:
    """Where rows and columns of a grid of this `shape` look, in 0…1 of an image's height and width, which are `size` pixels for
    the CNN; `looks`: the model's `grid_centres`. None: nothing is known of it."""
    if looks is None:
        return None
    first, step = looks
    down, across = (
        [(first + step * place) / length for place in range(count)] for count, length in zip(shape, size, strict=True)
    )
    return down, across


def on_pixels(
    matrix_SS: Tensor, words: Sequence[Sequence[int]], length: int, places_K: Tensor, mask_K: Tensor, columns: int
) -> Tensor:
    """W rows columns float32: the mean over the tokens of each word of what stands in their rows for each pixel.

    `words`: the places of each one's tokens. `length`: L, with padding. `places_K`: where the pixels are in a grid of so many
    `columns`, row by row; `mask_K`: False at padding, which the result leaves out.
    """
    matrix_SS = matrix_SS.detach().float()
    rows_WS = torch.stack([matrix_SS[list(places)].mean(0) for places in words])
    of_pixels_WM, places_M = rows_WS[:, length:][:, mask_K], places_K[mask_K]
    rows, own_columns = int((places_M // columns).max()) + 1, int((places_M % columns).max()) + 1
    found_WRC = of_pixels_WM.new_zeros(len(rows_WS), rows, own_columns)
    found_WRC[:, places_M // columns, places_M % columns] = of_pixels_WM
    return found_WRC
