"""Where a word looks, as a picture: its own light where the word's attention goes, dark elsewhere.

The picture's own colours stay, light is seen without telling colours apart, and the text below says it in words.

h w pixels of the picture, W words, R C rows and columns of the CNN's grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin.asking.attention import Attention
from pixelbert_plugin.demo.markup import figures, percent

LONGEST = 640  # pixels of a picture that is shown
DARKEST = 0.25  # of its own light, where no attention goes
EVEN = 1.05  # times the least, up to which the most is no place of its own


@dataclass(frozen=True, eq=False)
class Look:
    """A text's words on its picture, or its pictures."""

    pictures: tuple[Tensor, ...]  # each 3 h w uint8, as it is shown
    names: tuple[str, ...]  # what each is called
    attentions: tuple[Attention, ...]  # of each

    @property
    def words(self) -> tuple[str, ...]:
        return self.attentions[0].words

    def html(self, word: int) -> str:
        """The pictures with the attention of a word, by its place among the words."""
        found = []
        for picture, name, attention in zip(self.pictures, self.names, self.attentions, strict=True):
            told = described(attention.words[word], attention.weights[word], name)
            found.append(
                (lit(picture, attention.weights[word]), f"The {name}, lit where “{attention.words[word]}” looks", told)
            )
        return figures(found, "looks")


def look(pictures: Sequence[Tensor], names: Sequence[str], attentions: Sequence[Attention]) -> Look:
    return Look(tuple(map(reduced, pictures)), tuple(names), tuple(attentions))


def reduced(picture_3hw: Tensor, longest: int = LONGEST) -> Tensor:
    """The picture, its longer side at most so many pixels."""
    height, width = picture_3hw.shape[1:]
    scale = min(1.0, longest / max(height, width))
    if scale == 1:
        return picture_3hw.contiguous()
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    shrunk = F.interpolate(picture_3hw[None].float(), size, mode="bilinear", antialias=True)[0]
    return shrunk.round().clamp(0, 255).to(torch.uint8)


def lit(picture_3hw: Tensor, weights_RC: Tensor) -> Tensor:
    """3 h w uint8: each cell of the grid by its weight, the brightest as the picture is. The grid is stretched over the whole
    picture: where that is no multiple of a cell, cells stand by less than one too far left or up."""
    most = float(weights_RC.max())
    share_RC = weights_RC / most if most > 0 else torch.zeros_like(weights_RC)
    share_hw = F.interpolate(share_RC[None, None], picture_3hw.shape[1:], mode="nearest-exact")[0, 0]
    return (picture_3hw * (DARKEST + (1 - DARKEST) * share_hw)).round().clamp(0, 255).to(torch.uint8)


def described(word: str, weights_RC: Tensor, name: str) -> str:
    """How much of a word's attention is on a picture, and where the most of it."""
    most, least = float(weights_RC.max()), float(weights_RC.min())
    told = f"{percent(float(weights_RC.sum()))} of the attention of “{word}” is on the {name}"
    if most <= EVEN * least or weights_RC.numel() == 1:
        return f"{told}, evenly"
    rows, columns = weights_RC.shape
    row, column = divmod(int(weights_RC.argmax()), columns)
    vertical = ("top", "middle", "bottom")[int(3 * (row + 0.5) / rows)]
    horizontal = ("left", "centre", "right")[int(3 * (column + 0.5) / columns)]
    place = "centre" if (vertical, horizontal) == ("middle", "centre") else f"{vertical} {horizontal}"
    return f"{told}, most of it ({percent(most)}) at the {place}"
