"""A mixture: one or more data sets' samples of a split under one index, and what the order needs to know of them. M samples."""

import logging
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin import registry
from pixelbert_plugin.data.blocks import Arrays, Rows
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.cache import cached
from pixelbert_plugin.data.images import BadImageError, upright_size
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)


class Mixture(Rows[Sample]):
    """The samples of `split` of every data set, one after the other."""

    def __init__(
        self,
        split: str,
        parts: Mapping[str, Iterable[Sample]],
        on_bad_image: Mapping[str, str] | None = None,
        only_known_answers: Collection[str] = (),
    ):
        """`on_bad_image`: error or skip, by data set; `only_known_answers`: the data sets that say so. Raises UserError for
        samples that cannot be made or used."""
        self.split, self.on_bad_image, self.only_known_answers = split, dict(on_bad_image or {}), frozenset(only_known_answers)
        self.parts = {name: _as_samples(samples, f"the {split} split of {name}") for name, samples in parts.items()}
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
        for name, given in parts.items():
            what = f"the {split} split of {name} (builder {registry.location(type(builders[name]))})"
            samples = parts[name] = _as_samples(given, what)
            if not len(samples):
                raise UserError(f"datasets: the {split} split of {name} is empty; check dataset_config.{name} and its files")
            if samples is not given and not builders[name].config.outside_images:  # else its builder looked at each name
                _refuse_outside(name, samples)
            if samples.repeated_id is not None:
                files = ", ".join(str(path) for _, path in _ask(name, builders[name], split, builders[name].files))
                raise UserError(
                    f"datasets: the {split} split of {name} has several samples of id {samples.repeated_id!r}"
                    f"{f' (files: {files})' if files else ''}; results are kept by id: give every sample its own"
                )
        on_bad_image = {name: builder.config.on_bad_image for name, builder in builders.items()}
        return cls(split, parts, on_bad_image, [name for name in parts if builders[name].config.only_known_answers])

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        return self.locate(index)[1]

    def __iter__(self) -> Iterator[Sample]:
        return chain.from_iterable(self.parts.values())

    def locate(self, index: int) -> tuple[str, Sample]:
        """The data set and the sample at a global index."""
        index = range(len(self))[index]
        part = bisect_right(self._starts, index) - 1
        name = self._names[part]
        return name, self.parts[name][index - self._starts[part]]

    def labelled(self, group: str) -> Iterator[tuple[str, str, str | None]]:
        """Of every sample its text, its kind in `group` ("": none) and its `answer`, without making a Sample."""
        return chain.from_iterable(samples.labelled(group) for samples in self.parts.values())

    def bounds(self, index: int) -> tuple[int, int]:
        """Where the data set of the sample at a global index begins and ends."""
        part = bisect_right(self._starts, index) - 1
        return self._starts[part], self._starts[part + 1]

    def text(self, index: int) -> str:
        """The text of the sample at a global index."""
        part = bisect_right(self._starts, index) - 1
        return self.parts[self._names[part]].text(index - self._starts[part])

    @cached_property
    def images_M(self) -> np.ndarray:
        """M int64, from 0 by first use: samples with the same images (of the same data set) have the same number."""
        numbers, used = [], 0
        for samples in self.parts.values():
            numbers.append(samples.images_M.astype(np.int64) + used)
            used += len(samples.first_image_of_set)
        return np.concatenate(numbers)

    @cached_property
    def text_bytes_M(self) -> np.ndarray:
        """M int64: how long each sample's text is, in bytes of UTF-8."""
        return np.concatenate([samples.text_bytes_M for samples in self.parts.values()])

    def resized_sizes(self, processor: ImageProcessor, cache_dir: Path | None = None) -> np.ndarray:
        """M 2 int64: height and width of each sample's first image after resizing, read from the files' headers.

        With `cache_dir` the files' sizes are kept there, until a folder of theirs changes.
        """
        parts = self.parts.values()
        images = [[str(part.root), *part.digest_of_files()] for part in parts]
        folders = sorted({folder for part in parts for folder in part.folders()})

        def read() -> Arrays:
            paths = [part.image_path(row) for part in parts for row in part.first_image_of_set.tolist()]
            return {"sizes_S2": _upright_sizes(paths)}

        sizes = cached(cache_dir, "image_sizes", images, folders, read)["sizes_S2"]
        distinct, which = np.unique(sizes, axis=0, return_inverse=True)  # of 100,000 photographs some thousand
        resized = [processor.resized(height, width) if height else (1, 1) for height, width in distinct.tolist()]
        return np.array(resized)[which.reshape(-1)][self.images_M]


def _as_samples(samples: Iterable[Sample], what: str) -> Samples:
    """What a builder gave, as it is kept here. Raises UserError for what cannot be."""
    if isinstance(samples, Samples):
        return samples
    if not isinstance(samples, Iterable):
        raise UserError(f"datasets: {what} is {samples!r:.80}; samples(split) must return a list of Sample, or yield them")
    return Samples.of(samples, what)


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


def _refuse_outside(name: str, samples: Samples) -> None:
    """Raises UserError for an image whose path steps out of its folder."""
    for row, path in enumerate(samples.image_paths()):
        if ".." in path.parts:
            sample = samples[samples.first_with_image(row)]
            raise UserError(
                f"datasets: sample {sample.sample_id!r} of {name}: image {str(path)!r} steps out of its folder; "
                f"correct the files, or allow it with dataset_config.{name}.outside_images=true"
            )
