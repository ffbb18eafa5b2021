"""Where the words of a text look: what the last layer's attention gives to each pixel of an image, heads averaged.

A word's attention adds up to 1 over all that it can look at, words and pixels; what is here is the pixels' part. It shows what
the last layer mixes into the word, which is not always why a model answers as it does.

h heads, S = L + K: L tokens, then K pixels; W words; rows × columns the grid of the CNN's pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.types import ModelOutput

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel


@dataclass(frozen=True, eq=False)
class Attention:
    """Of a text's words on one image."""

    words: tuple[str, ...]  # W: the special tokens too; the heads of answers and matching read [CLS], the first
    weights: Tensor  # W rows columns float32 on the CPU; the first row and column are the image's upper left corner


def attend(model: "LoadedModel", images: Any, text: str) -> list[Attention]:
    """The attention of a text's words on its image, or on each of its images (a list of them). Raises UserError where the
    model gives none."""
    if not cast(Model, model.model).gives_attentions:
        raise UserError(f"attention: the model {model.config.model!r} does not give its attention (gives_attentions is false)")
    batch = model.batch([(images, text)])
    with torch.no_grad(), model.autocast():
        output: ModelOutput = model.model(batch, return_attentions=True)
    if not output.attentions:
        raise UserError("attention: the text encoder gave no attention weights")
    words = model.processors["text"].words(text)
    length, last_QhSS = batch.input_ids.shape[1], output.attentions[-1]
    found = []
    for weights_hSS, places_K, mask_K in zip(last_QhSS, output.pixel_positions, output.pixel_mask, strict=True):
        weights = on_pixels(weights_hSS, [places for _, places in words], length, places_K, mask_K, output.grid[1])
        found.append(Attention(tuple(word for word, _ in words), weights.cpu()))
    return found


def on_pixels(
    weights_hSS: Tensor, words: Sequence[Sequence[int]], length: int, places_K: Tensor, mask_K: Tensor, columns: int
) -> Tensor:
    """W rows columns float32: the mean over the heads, and over the tokens of each word, of what goes to each pixel.

    `weights_hSS`: who looks (a row) at what; each row adds up to 1. `words`: the places of each one's tokens. `length`: L, with
    padding. `places_K`: where the pixels are in a grid of `columns`, row by row; `mask_K`: False at padding, which the result
    leaves out.
    """
    mean_SS = weights_hSS.float().mean(0)
    rows_WS = torch.stack([mean_SS[list(places)].mean(0) for places in words])
    of_pixels_WM, places_M = rows_WS[:, length:][:, mask_K], places_K[mask_K]
    rows, own_columns = int((places_M // columns).max()) + 1, int((places_M % columns).max()) + 1
    weights_WRC = of_pixels_WM.new_zeros(len(rows_WS), rows, own_columns)
    weights_WRC[:, places_M // columns, places_M % columns] = of_pixels_WM
    return weights_WRC
