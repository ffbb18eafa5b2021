"""Texts of other images, for image-text matching and retrieval. M samples."""

import random

import numpy as np

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError

TRIES = 1000  # draws before the data set is taken to hold no such text


class Negatives:
    """Draws, for a sample, `count` samples of other images whose texts are none of its own image's.

    They come from the sample's own data set: a caption among region phrases would give itself away by its style, and an
    image that two data sets share could be given a text that is true of it.
    """

    def __init__(self, mixture: Mixture, count: int):
        self.mixture, self.images_M, self.count = mixture, mixture.images_M, count
        self._by_image = np.argsort(self.images_M, kind="stable")
        self._starts = np.searchsorted(self.images_M[self._by_image], np.arange(self.images_M.max() + 2))

    def draw(self, index: int, seed: int) -> list[int]:
        """`count` distinct indices into the mixture, a function of `index` and `seed`. Raises UserError: too few."""
        draw, count = random.Random(seed), self.count
        first, last = self.mixture.bounds(index)
        own = {self.mixture.text(int(other)).lower() for other in self._of_image(index)}
        chosen: list[int] = []
        for _ in range(TRIES * count):
            other = draw.randrange(first, last)
            is_other = self.images_M[other] != self.images_M[index] and other not in chosen
            if is_other and self.mixture.text(other).lower() not in own:
                chosen.append(other)
                if len(chosen) == count:
                    return chosen
        name, sample = self.mixture.locate(index)
        raise UserError(
            f"datasets: {name} has fewer than {count} texts of other images that differ from those of sample "
            f"{sample.sample_id}'s image; a task with negatives needs more images"
        )

    def _of_image(self, index: int) -> np.ndarray:
        image = self.images_M[index]
        return self._by_image[self._starts[image] : self._starts[image + 1]]
