"""Where an answer, or a word, comes from, as a picture: its own light where the map is large, dark elsewhere.

The picture's own colours stay, light is seen without telling colours apart, and the text below it says it in words.

h w pixels of the picture as it is shown.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin.asking.explanation import Explanation, lit
from pixelbert_plugin.demo.markup import figures, percent

LONGEST = 640  # pixels of a picture that is shown
EVEN = 1.05  # times the least ninth, up to which the most is no place of its own


@dataclass(frozen=True, eq=False)
class Look:
    """An explanation of what was answered, on its picture or its pictures."""

    explanation: Explanation
    names: tuple[str, ...]  # what each picture is called

    @property
    def words(self) -> tuple[str, ...]:
        """What can be looked at: the answer, then the text's words."""
        return (f"the answer: {self.explanation.answer}", *self.explanation.words)

    def html(self, word: int) -> str:
        """The pictures with the map of the answer or of a word, by its place among the words."""
        found = []
        for image, name in zip(self.explanation.images, self.names, strict=True):
            picture = reduced(image.picture)
            values_hw = image.over_pixels(word - 1 if word else None, (picture.shape[1], picture.shape[2]))
            what = f"“{self.words[word]}”"
            alternative = f"The {name}, lit where {what} {'looks' if word else 'comes from'}"
            found.append((lit(picture, values_hw), alternative, described(what, values_hw, name)))
        return figures(found, "looks")


def reduced(picture_3hw: Tensor, longest: int = LONGEST) -> Tensor:
    """The picture, its longer side at most so many pixels."""
    height, width = picture_3hw.shape[1:]
    scale = min(1.0, longest / max(height, width))
    if scale == 1:
        return picture_3hw.contiguous()
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    shrunk = F.interpolate(picture_3hw[None].float(), size, mode="bilinear", antialias=True)[0]
    return shrunk.round().clamp(0, 255).to(torch.uint8)


def described(what: str, values_hw: Tensor, name: str) -> str:
    """How much of a map is in the ninth of the picture that has the most of it."""
    ninths = F.adaptive_avg_pool2d(values_hw.clamp(min=0)[None, None], 3)[0, 0]  # of a small picture they overlap
    most, least = float(ninths.max()), float(ninths.min())
    if most <= EVEN * least or values_hw.numel() == 1:
        return f"{what}: evenly over the {name}"
    row, column = divmod(int(ninths.argmax()), 3)
    vertical, horizontal = ("top", "middle", "bottom")[row], ("left", "centre", "right")[column]
    place = "centre" if (vertical, horizontal) == ("middle", "centre") else f"{vertical} {horizontal}"
    return f"{what}: {percent(most / float(ninths.sum()))} of the map of the {name} is at the {place}"
