"""What Visual Genome's data sets share: the list of images, those that others test on, and a val where none is published.

Half of its images are also COCO's, some are Flickr30K's: those that are validated or tested on there are left out.
"""

import logging
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pixelbert_plugin.data.blocks import Arrays
from pixelbert_plugin.data.builders.base import Builder, BuilderConfig
from pixelbert_plugin.data.builders.karpathy import ImageSplits
from pixelbert_plugin.data.files import OneType, listed, read_json_array
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.data.samples import Samples, SamplesWriter
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, FilePath, require
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)

HELD_OUT = ("val", "test")  # Karpathy's splits whose images must not be learned from


@dataclass(kw_only=True)
class GenomeConfig(BuilderConfig):
    image_data: FilePath = ""  # image_data.json; this and the other paths are relative to env.data_dir
    images: FilePath = ""  # folder that holds VG_100K/ and VG_100K_2/
    exclude_coco: FilePath | None = None  # dataset_coco.json: leave out images that are tested on (by coco_id). None: keep them
    exclude_flickr30k: FilePath | None = None  # dataset_flickr30k.json: the same, of val and test (by flickr_id)
    num_val_images: int = 0  # no split is published: this many images, evenly spread, are val instead of train. 0: no val

    def check(self) -> None:
        require(self, "num_val_images", low=0)


class GenomeBuilder(Builder):
    """Base of builders of texts about Visual Genome's images. A subclass names its file and reads one image's entry of it."""

    config: GenomeConfig
    annotations: str  # the option that names the file of texts
    listed: str  # what the file calls an image's list of them
    unit: str  # what one is called in counts
    lacking: str  # what one lacks that is passed over

    def own_splits(self) -> list[str]:
        return ["train", "val"] if self.config.num_val_images else ["train"]

    def has_split(self, split: str) -> bool:
        return split in self.config.use or split in self.own_splits()

    def source_split(self, split: str) -> str:
        if not self.has_split(split):
            raise ConfigError(f"{self.key}.num_val_images", f"{self.config.num_val_images}: Visual Genome has no {split} split")
        return super().source_split(split)

    def files(self, split: str) -> list[tuple[str, Path]]:
        names = (self.annotations, "image_data", "exclude_coco", "exclude_flickr30k")
        paths = ((name, getattr(self.config, name)) for name in names)
        return [(key := f"{self.key}.{name}", self.official(key, path)) for name, path in paths if path is not None]

    def options(self) -> list[Any]:
        """What the samples depend on besides the files, as JSON."""
        excluded = [name for name in ("exclude_coco", "exclude_flickr30k") if getattr(self.config, name) is not None]
        return [self.config.images, self.config.num_val_images, excluded, self.config.outside_images]

    def samples(self, split: str) -> Samples:
        own = self.source_split(split)
        arrays = self.cached(self.options(), self.files(split), self._read)
        self._counts = dict(zip(self._counted, arrays["counts"].tolist(), strict=True))
        if own == "train":
            logger.info(
                "%s: left out of %d images: %d in COCO's %s, %d in Flickr30K's; with them %d %s; and %d %s without %s",
                *(self.name, self._counts["listed_images"], self._counts["coco_images"], listed(self.held_out_of_coco)),
                *(self._counts["flickr30k_images"], self._counts[f"left_out_{self.unit}"], self.unit),
                *(self._counts[f"empty_{self.unit}"], self.unit, self.lacking),
            )
        prefix = f"{own}."
        own_arrays = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        self._counts = {"images": int(own_arrays.pop("num_images")), **self._counts}
        return Samples(own_arrays, self.data_dir)

    def count(self, split: str, samples: Samples) -> dict[str, int]:
        return {"samples": len(samples), **self._counts}

    @property
    def held_out_of_coco(self) -> tuple[str, ...]:
        """Karpathy's splits of COCO whose images are left out."""
        return HELD_OUT

    @abstractmethod
    def read_image(
        self, ids: tuple[int | str], files: tuple[Path], records: list[Any], path: Path, index: int
    ) -> Iterator[Sample]:
        """The samples of entry `index` of `path`, about one image, but for those that lack what `lacking` says."""

    @property
    def _counted(self) -> tuple[str, ...]:
        return "listed_images", "coco_images", "flickr30k_images", f"left_out_{self.unit}", f"empty_{self.unit}"

    def _read(self) -> Arrays:
        """The arrays of train and val, how many images each has, and the numbers of `_counted`."""
        counts = dict.fromkeys(self._counted, 0)
        files = self._image_files(counts)
        val_images = self._val_images([image for image, file in files.items() if file])
        path = self.data_dir / getattr(self.config, self.annotations)
        writers = {split: SamplesWriter(f"{path}, {split}", self.data_dir) for split in self.own_splits()}
        images = dict.fromkeys(writers, 0)
        sample_type, image_type = OneType(f"{path}: sample ids"), OneType(f"{path}: image ids")
        for index, record in enumerate(read_json_array(path, f"{self.key}.{self.annotations}", self.remedy)):
            image_id = id_of(record, ("id", "image_id"), path, index)
            records = entry(record, self.listed, path, index, list)
            if image_id not in files:
                raise UserError(
                    f"{path}: entry {index} is about image {image_id}, which is not in {self.config.image_data}; "
                    "the two files are not of one release: download both again"
                )
            if file := files[image_id]:
                split = "val" if image_id in val_images else "train"
                images[split] += 1
                writer, before = writers[split], len(writers[split])
                for sample in self.read_image((image_type(image_id),), (self.data_dir / file,), records, path, index):
                    sample_type(sample.sample_id)
                    writer.add(sample)
                counts[f"empty_{self.unit}"] += len(records) - (len(writer) - before)
            else:
                counts[f"left_out_{self.unit}"] += len(records)
        arrays = {f"{split}.{name}": array for split, writer in writers.items() for name, array in writer.arrays().items()}
        numbers = {f"{split}.num_images": np.array(number) for split, number in images.items()}
        return {**arrays, **numbers, "counts": np.array([counts[name] for name in self._counted])}

    def _image_files(self, counts: dict[str, int]) -> dict[int | str, str]:
        """Each image's path below data_dir, "" for one that is left out and counted."""
        path = self.data_dir / self.config.image_data
        coco = self._held_out("exclude_coco", self.held_out_of_coco)
        flickr = self._held_out("exclude_flickr30k", HELD_OUT)
        files: dict[int | str, str] = {}
        for index, record in enumerate(read_json_array(path, f"{self.key}.image_data", self.remedy)):
            image_id = id_of(record, ("image_id", "id"), path, index)
            if image_id in files:
                raise UserError(f"{path}: image {image_id} is duplicated; download the file again")
            folder_and_name = entry(record, "url", path, index, str).split("/")[-2:]  # VG_100K_2/1.jpg
            if len(folder_and_name) < 2:
                raise UserError(f"{path}: entry {index}: 'url' is {record['url']!r}, which names no folder and file")
            self.image_name("/".join(folder_and_name), path, index)
            is_coco, is_flickr = _number(record.get("coco_id")) in coco, _number(record.get("flickr_id")) in flickr
            counts["listed_images"] += 1
            counts["coco_images"] += is_coco
            counts["flickr30k_images"] += is_flickr and not is_coco
            files[image_id] = "" if is_coco or is_flickr else str(PurePosixPath(self.config.images, *folder_and_name))
        return files

    def _held_out(self, name: str, wanted: tuple[str, ...]) -> set[int]:
        """The numbers of the images in `wanted` of the Karpathy file that the option `name` gives."""
        file = getattr(self.config, name)
        if file is None:
            return set()
        splits = ImageSplits(self.data_dir / file, f"{self.key}.{name}", self.remedy)
        self.check_splits(name, splits)
        numbers = {number for number in map(_number, splits.images([*wanted])) if number is not None}
        if not numbers:
            raise ConfigError(
                f"{self.key}.{name}",
                f"{file!r}: has no image with a number in {listed(wanted, 'or')}, so none would be left out; set null",
            )
        return numbers

    def check_splits(self, name: str, splits: ImageSplits) -> None:
        """Raises ConfigError where the file that the option `name` gives lacks a split that was asked for by name."""

    def _val_images(self, images: list[int | str]) -> set[int | str]:
        count = self.config.num_val_images
        if count and count >= len(images):
            raise ConfigError(f"{self.key}.num_val_images", f"{count}: there are {len(images)} images; give fewer")
        return {images[(2 * number + 1) * len(images) // (2 * count)] for number in range(count)}


def id_of(record: Any, names: tuple[str, str], path: Path, index: int) -> int | str:
    """The first of two names for an id: the releases of Visual Genome differ in them."""
    name = names[0] if isinstance(record, dict) and names[0] in record else names[1]
    return entry(record, name, path, index, (int, str))


def _number(image: int | float | str | None) -> int | None:
    """The number that an id, or an image's file name, ends with: COCO_val2014_000000000042.jpg, 42.0 and 42 are one image."""
    if isinstance(image, float):
        return int(image) if image.is_integer() else None
    digits = re.search(r"(\d+)$", PurePosixPath(str(image)).stem)
    return int(digits[1]) if digits else None
