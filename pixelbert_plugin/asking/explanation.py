"""What `explain` gives: maps over images' pixels, and pictures of them.

H W pixels of an image in its own size, upright, rows × columns of a map as a method gives it, W words.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pixelbert_plugin.data.light import in_light, over_pixels
from pixelbert_plugin.errors import UserError, replacing, writing
from pixelbert_plugin.types import ExplanationMap

if TYPE_CHECKING:
    from PIL import Image

TILE, EDGE, LINE = 240, 8, 18  # pixels of a sheet: a picture's longer side, between pictures, a line of text
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")  # of a sheet's file


@dataclass(frozen=True, eq=False)
class ImageExplanation:
    """Of one image."""

    picture: Tensor  # 3 H W uint8
    cells: ExplanationMap  # as the method gave it
    of_words: ExplanationMap  # the same, or another method's, whose maps of words are shown

    @functools.cached_property
    def map(self) -> np.ndarray:
        """H W float32, of the answer: larger is more. The cells lie evenly over the image, linear in between."""
        found: np.ndarray = self.over_pixels(None, self._size).numpy()
        return found

    def word_map(self, word: int) -> np.ndarray:
        """H W float32, of a word, by its place among the explanation's words. Raises UserError where there is none."""
        found: np.ndarray = self.over_pixels(word, self._size).numpy()
        return found

    def over_pixels(self, word: int | None, size: tuple[int, int]) -> Tensor:
        """The map of a word, or None: of the answer, over the picture at another height and width."""
        if word is None:
            return over_pixels(self.cells.answer, size, self.cells.centres)
        words = [] if self.of_words.words is None else list(self.of_words.words)
        if not 0 <= word < len(words):
            raise UserError(f"word={word}: there are {len(words)} maps of words here; some methods have none")
        return over_pixels(words[word], size, self.of_words.centres)

    def overlay(self, word: int | None = None) -> "Image.Image":
        """The picture, as it is where the map is largest, darker where it is less; of a word, or None: of the answer."""
        from PIL import Image

        values_HW = self.over_pixels(word, self._size)
        return Image.fromarray(lit(self.picture, values_HW).permute(1, 2, 0).numpy())

    @property
    def _size(self) -> tuple[int, int]:
        return self.picture.shape[1], self.picture.shape[2]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where on its image, or images, an answer comes from."""

    method: str  # its registered name
    text: str
    answer: str  # that is explained; of a matching text "match" or "no match"
    probability: float  # that the model gives it
    words: tuple[str, ...]  # W: special tokens too; () where there are no maps of words
    words_method: str  # whose maps of words there are: where no method is named, the best one that has any; "": there are none
    images: tuple[ImageExplanation, ...]  # in the order they were given in

    @property
    def map(self) -> np.ndarray:
        """H W float32, of the (first) image's pixels for the answer."""
        return self.images[0].map

    def word_map(self, word: int) -> np.ndarray:
        """H W float32, of the (first) image's pixels for a word, by its place among `words`."""
        return self.images[0].word_map(word)

    def overlay(self, word: int | None = None) -> "Image.Image":
        """The (first) picture, lit where the map of the answer, or of a word, is large."""
        return self.images[0].overlay(word)

    def sheet(self) -> "Image.Image":
        """All pictures in one: of each image itself, the answer's overlay and each word's, with what they are below them."""
        return _sheet(self)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write `sheet()` as a .png, .jpg or .webp. Raises UserError where the file is there, unless `overwrite`."""
        save(self, path, overwrite, "path")


def save(explanation: Explanation, path: str | Path, overwrite: bool, key: str) -> None:
    """`Explanation.save`, whose errors call the path `key`."""
    target = Path(path).expanduser()
    require_writable(target, overwrite, key)
    with writing(target, key), replacing(target) as aside:
        explanation.sheet().save(aside, {".jpg": "JPEG", ".jpeg": "JPEG"}.get(target.suffix.lower(), target.suffix[1:].upper()))


def require_writable(target: Path, overwrite: bool, key: str) -> None:
    """Raises UserError where a sheet cannot be written there, before anything is computed."""
    given = f"{key}={str(target)!r}"
    if target.suffix.lower() not in ENDINGS:
        raise UserError(f"{given}: must be a file that ends in {', '.join(ENDINGS)}")
    if target.is_dir() or not target.parent.is_dir():
        what = "is a folder" if target.is_dir() else f"there is no folder {str(target.parent)!r}"
        raise UserError(f"{given}: {what}; name a file in a folder that is there")
    if target.exists() and not overwrite:
        raise UserError(f"{given}: is there already; name another file, or overwrite=true")


def lit(picture_3HW: Tensor, values_HW: Tensor) -> Tensor:
    """3 H W uint8: each pixel by its value, the brightest as the picture is; what is below 0 as 0."""
    values_HW = values_HW.clamp(min=0)
    most = float(values_HW.max())
    share_HW = values_HW / most if most > 0 else torch.zeros_like(values_HW)
    return in_light(picture_3HW, share_HW)


def _sheet(explanation: Explanation) -> "Image.Image":
    from PIL import Image, ImageDraw, ImageFont

    told = f"{explanation.answer} ({100 * explanation.probability:.1f} %)"
    rows: list[list[tuple[Image.Image, str]]] = []
    for each in explanation.images:
        whole = Image.fromarray(each.picture.permute(1, 2, 0).contiguous().numpy())
        row = [(whole, explanation.text), (each.overlay(), told)]
        rows.append([*row, *((each.overlay(place), word) for place, word in enumerate(explanation.words))])
    columns = min(6, len(rows[0]))
    lines = [row[start : start + columns] for row in rows for start in range(0, len(row), columns)]
    step, height = TILE + EDGE, TILE + EDGE + LINE
    sheet = Image.new("RGB", (columns * step + EDGE, len(lines) * height + EDGE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for down, line in enumerate(lines):
        for across, (tile, below) in enumerate(line):
            left, top = EDGE + across * step, EDGE + down * height
            small = _fitted(tile)
            sheet.paste(small, (left + (TILE - small.width) // 2, top + (TILE - small.height) // 2))
            draw.text((left, top + TILE + 2), _shortened(below, font, TILE), "black", font)
    return sheet


def _fitted(picture: "Image.Image") -> "Image.Image":
    """The picture with a longer side of TILE pixels."""
    scale = TILE / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _shortened(text: str, font: Any, width: int) -> str:
    """As much of the text as fits."""
    while font.getlength(text) > width and len(text) > 1:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text
