"""A mixture: one or more data sets' samples of a split under one index, and what the order needs to know of them. M samples.

A builder's samples are any Sequence of Sample. One of millions offers two arrays too, which are used where they are there,
so that nobody walks through all samples (data/pairs.py has them):

    ids_M            the sample ids, numbers or texts
    image_numbers_M  ints, equal for samples with the same images
"""

import hashlib
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.cache import cached
from pixelbert_plugin.data.checked import CheckedSamples
from pixelbert_plugin.data.images import BadImageError, upright_size
from pixelbert_plugin.data.pairs import Pairs
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)


@dataclass
class Mixture(Sequence):
    """The samples of `split` of every data set, one after the other."""

    split: str
    parts: dict[str, Sequence[Sample]]  # by data set
    on_bad_image: dict[str, str] = field(default_factory=dict)  # error or skip, by data set

    def __post_init__(self):
        self._names = list(self.parts)
        self._starts = [0, *accumulate(map(len, self.parts.values()))]  # of each part, then the end

    @classmethod
    def build(cls, builders: dict[str, Builder], split: str) -> "Mixture":
        """Read the split of every builder that has it. Raises UserError where it is empty or a sample id is duplicated."""
        held = [name for name, builder in builders.items() if _ask(name, builder, split, builder.has_split)]
        parts = {name: _ask(name, builders[name], split, builders[name].samples) for name in held}
        if not parts:
            names = ", ".join(builders)
            raise UserError(f"datasets: the {split} split of {names} is empty: no data set has one; change run_type")
        for name, samples in parts.items():
            if not isinstance(samples, Sequence):
                raise UserError(f"the builder {name!r}: samples({split!r}) must return a list (a Sequence) of Sample")
            if not isinstance(samples, Pairs):  # whose columns have types
                samples = parts[name] = CheckedSamples(samples, name, split, registry.location(type(builders[name])))
                _ask(name, builders[name], split, lambda _, samples=samples: next(iter(samples), None))  # the first one
            if len(samples) == 0:
                raise UserError(f"datasets: the {split} split of {name} is empty; check dataset_config.{name} and its files")
            is_columns = getattr(samples, "ids_M", None) is not None  # whose builder looked at each name
            if not is_columns and not builders[name].config.outside_images:
                _refuse_outside(name, samples)
            repeated = _repeated_id(samples)
            if repeated is not None:
                files = ", ".join(str(path) for _, path in _ask(name, builders[name], split, builders[name].files))
                raise UserError(
                    f"datasets: the {split} split of {name} has several samples of id {repeated!r}"
                    f"{f' (files: {files})' if files else ''}; results are kept by id: give every sample its own"
                )
        return cls(split, parts, {name: builder.config.on_bad_image for name, builder in builders.items()})

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        return self.locate(index)[1]

    def locate(self, index: int) -> tuple[str, Sample]:
        """The data set and the sample at a global index."""
        index = range(len(self))[index]
        part = bisect_right(self._starts, index) - 1
        name = self._names[part]
        return name, self.parts[name][index - self._starts[part]]

    def bounds(self, index: int) -> tuple[int, int]:
        """Where the data set of the sample at a global index begins and ends."""
        part = bisect_right(self._starts, index) - 1
        return self._starts[part], self._starts[part + 1]

    @cached_property
    def images_M(self) -> np.ndarray:
        """M int64, from 0 by first use: samples with the same images (of the same data set) have the same number."""
        numbers, used = [], 0
        for samples in self.parts.values():
            numbers_M = _image_numbers(samples) + used
            numbers.append(numbers_M)
            used = int(numbers_M.max()) + 1
        return np.concatenate(numbers)

    def resized_sizes(self, processor: ImageProcessor, cache_dir: Path | None = None) -> np.ndarray:
        """M 2 int64: height and width of each sample's first image after resizing, read from the files' headers.

        With `cache_dir` the files' sizes are kept there, until a folder of theirs changes.
        """
        first_of_image = np.unique(self.images_M, return_index=True)[1]
        paths = [self[int(index)].images[0] for index in first_of_image]
        digest = hashlib.blake2b("\n".join(map(str, paths)).encode(), digest_size=16).hexdigest()
        folders = sorted({path.parent for path in paths})
        sizes = cached(cache_dir, "image_sizes", digest, folders, lambda: {"sizes_I2": _upright_sizes(paths)})["sizes_I2"]
        resized = [processor.resized(height, width) if height else (1, 1) for height, width in sizes.tolist()]
        return np.array(resized)[self.images_M]


def _upright_sizes(paths: list[Path]) -> np.ndarray:
    """I 2 int64: height and width of every file, 0 where it cannot be read: the reader deals with it, as on_bad_image says."""
    logger.info("reading the sizes of %d images (training.bucket_by_size)", len(paths))

    def size(path: Path) -> tuple[int, int]:
        try:
            return upright_size(path)
        except BadImageError:
            return 0, 0

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(size, paths)))


def _ask(name: str, builder: Builder, split: str, method: Callable[[str], Any]) -> Any:
    """What a builder's method says of the split. Raises UserError with the place of the builder where it fails."""
    try:
        return method(split)
    except RunError:
        raise
    except Exception as error:
        where = registry.location(type(builder))
        raise UserError(
            f"the builder {name!r} ({where}) failed on the {split} split: {type(error).__name__}: {error}; --debug shows where"
        ) from error


def _refuse_outside(name: str, samples: Sequence[Sample]) -> None:
    """Raises UserError for an image whose path steps out of its folder."""
    for sample in samples:
        for path in sample.images:
            if ".." in str(path) and ".." in Path(path).parts:
                raise UserError(
                    f"datasets: sample {sample.sample_id!r} of {name}: image {str(path)!r} steps out of its folder; "
                    f"correct the files, or allow it with dataset_config.{name}.outside_images=true"
                )


def _repeated_id(samples: Sequence[Sample]) -> int | str | None:
    """An id that stands more than once, if there is one."""
    ids_M = getattr(samples, "ids_M", None)
    if ids_M is None:
        counts = Counter(sample.sample_id for sample in samples)
        return next((sample_id for sample_id, count in counts.items() if count > 1), None)
    sorted_M = np.sort(ids_M)
    repeated = sorted_M[1:][sorted_M[1:] == sorted_M[:-1]]
    return repeated[0].item() if len(repeated) else None


def _image_numbers(samples: Sequence[Sample]) -> np.ndarray:
    """M int64: 0 for the first sample's images, 1 for the next other ones, …"""
    numbers_M = getattr(samples, "image_numbers_M", None)
    if numbers_M is None:
        numbers: dict[tuple, int] = {}
        return np.array([numbers.setdefault(tuple(sample.image_ids), len(numbers)) for sample in samples])
    _, first_U, inverse_M = np.unique(numbers_M, return_index=True, return_inverse=True)
    rank_U = np.empty(len(first_U), dtype=np.int64)
    rank_U[np.argsort(first_U)] = np.arange(len(first_U))
    return rank_U[inverse_M]
