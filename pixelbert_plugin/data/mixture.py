"""A mixture: one or more data sets' samples of a split under one index, and what the order needs to know of them."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.processors.image import BadImageError, ImageProcessor, upright_size
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)


@dataclass
class Mixture(Sequence):
    """The samples of `split` of every data set, one after the other."""

    split: str
    parts: dict[str, Sequence[Sample]]  # by data set
    on_bad_image: dict[str, str] = field(default_factory=dict)  # error or skip, by data set

    @classmethod
    def build(cls, builders: dict[str, Builder], split: str) -> "Mixture":
        """Read the split. Raises UserError where it is empty or a sample id stands twice."""
        parts = {name: _samples(name, builder, split) for name, builder in builders.items()}
        for name, samples in parts.items():
            if not isinstance(samples, Sequence) or (len(samples) and not isinstance(samples[0], Sample)):
                raise UserError(f"the builder {name!r}: samples({split!r}) must return a list (a Sequence) of Sample")
            if len(samples) == 0:
                raise UserError(f"datasets: the {split} split of {name} is empty; check dataset_config.{name} and its files")
            ids = {sample.sample_id for sample in samples}
            if len(ids) < len(samples):
                raise UserError(f"datasets: the {split} split of {name} has {len(samples)} samples but {len(ids)} distinct ids")
        return cls(split, parts, {name: builder.config.on_bad_image for name, builder in builders.items()})

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __getitem__(self, index: int) -> Sample:
        return self.locate(index)[1]

    def locate(self, index: int) -> tuple[str, Sample]:
        """The data set and the sample at a global index."""
        for name, samples in self.parts.items():
            if index < len(samples):
                return name, samples[int(index)]
            index -= len(samples)
        raise IndexError(index)

    def image_numbers(self) -> np.ndarray:
        """M int64: samples with the same images (of the same data set) have the same number."""
        numbers: dict[tuple, int] = {}
        return np.array(
            [
                numbers.setdefault((name, *sample.image_ids), len(numbers))
                for name, samples in self.parts.items()
                for sample in samples
            ]
        )

    def resized_sizes(self, image_numbers_M: np.ndarray, processor: ImageProcessor) -> np.ndarray:
        """M 2 int64: height and width of each sample's first image after resizing, read from the files' headers."""
        first_of_image = np.unique(image_numbers_M, return_index=True)[1]
        paths = [self[int(index)].images[0] for index in first_of_image]
        logger.info("reading the sizes of %d images (training.bucket_by_size)", len(paths))

        def size(path):
            try:
                return processor.resized(*upright_size(path))
            except BadImageError:  # the reader will deal with it, as on_bad_image says
                return 1, 1

        with ThreadPoolExecutor() as pool:
            sizes = np.array(list(pool.map(size, paths)))
        return sizes[image_numbers_M]


def _samples(name: str, builder: Builder, split: str) -> Sequence[Sample]:
    try:
        return builder.samples(split)
    except RunError:
        raise
    except Exception as error:
        where = registry.location(type(builder))
        raise UserError(
            f"the builder {name!r} ({where}) failed on the {split} split: {type(error).__name__}: {error}; --debug shows where"
        ) from error
