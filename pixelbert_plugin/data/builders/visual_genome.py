"""Visual Genome's region descriptions from the official files (see datasets/visual_genome/README.md).

Half of its images are also COCO's, some are Flickr30K's: those in their val and test splits are left out.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pixelbert_plugin import registry
from pixelbert_plugin.data.blocks import Arrays
from pixelbert_plugin.data.builders.base import Builder, BuilderConfig
from pixelbert_plugin.data.builders.karpathy import ImageSplits
from pixelbert_plugin.data.files import OneType, read_json_array
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.data.samples import Samples, SamplesWriter
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, FilePath, require
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)

HELD_OUT = ["val", "test"]  # Karpathy's splits whose images must not be learned from
COUNTS = ("listed_images", "coco_images", "flickr30k_images", "left_out_regions", "empty_regions")


@dataclass(kw_only=True)
class VisualGenomeConfig(BuilderConfig):
    regions: FilePath = ""  # region_descriptions.json; this and the other paths are relative to env.data_dir
    image_data: FilePath = ""  # image_data.json
    images: FilePath = ""  # folder that holds VG_100K/ and VG_100K_2/
    exclude_coco: FilePath | None = None  # dataset_coco.json: leave its val and test images out (by coco_id). None: keep them
    exclude_flickr30k: FilePath | None = None  # dataset_flickr30k.json: the same (by flickr_id)
    num_val_images: int = 0  # no split is published: this many images, evenly spread, are val instead of train. 0: no val

    def check(self) -> None:
        require(self, "num_val_images", low=0)


@registry.register_builder("visual_genome")
class VisualGenomeBuilder(Builder):
    """Visual Genome: phrases that describe regions, each paired with the whole image; the sample id is the region's."""

    Config = VisualGenomeConfig
    config: VisualGenomeConfig
    defaults = "datasets/visual_genome/defaults.yaml"
    remedy = "datasets/visual_genome/README.md says where to get it"

    def own_splits(self) -> list[str]:
        return ["train", "val"] if self.config.num_val_images else ["train"]

    def has_split(self, split: str) -> bool:
        return split in self.config.use or split in self.own_splits()

    def source_split(self, split: str) -> str:
        if not self.has_split(split):
            raise ConfigError(f"{self.key}.num_val_images", f"{self.config.num_val_images}: Visual Genome has no {split} split")
        return super().source_split(split)

    def files(self, split: str) -> list[tuple[str, Path]]:
        names = ("regions", "image_data", "exclude_coco", "exclude_flickr30k")
        paths = ((name, getattr(self.config, name)) for name in names)
        return [(key := f"{self.key}.{name}", self.official(key, path)) for name, path in paths if path is not None]

    def samples(self, split: str) -> Samples:
        own, config = self.source_split(split), self.config
        excluded = [name for name in ("exclude_coco", "exclude_flickr30k") if getattr(config, name) is not None]
        options = [config.images, config.num_val_images, excluded, config.outside_images]
        arrays = self.cached(options, self.files(split), self._read)
        self._counts = dict(zip(COUNTS, arrays["counts"].tolist(), strict=True))
        if own == "train":
            logger.info(
                "visual_genome: left out of %d images: %d in COCO's val and test, %d in Flickr30K's; with them %d regions; "
                "and %d regions without a phrase",
                *self._counts.values(),
            )
        prefix = f"{own}."
        own_arrays = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        self._counts = {"images": int(own_arrays.pop("num_images")), **self._counts}
        return Samples(own_arrays, self.data_dir)

    def count(self, split: str, samples: Samples) -> dict[str, int]:
        return {"samples": len(samples), **self._counts}

    def _read(self) -> Arrays:
        """The arrays of train and val, how many images each has, and COUNTS."""
        counts = dict.fromkeys(COUNTS, 0)
        files = self._image_files(counts)
        val_images = self._val_images([image for image, file in files.items() if file])
        path = self.data_dir / self.config.regions
        writers = {split: SamplesWriter(f"{path}, {split}", self.data_dir) for split in self.own_splits()}
        images = dict.fromkeys(writers, 0)
        sample_type, image_type = OneType(f"{path}: sample ids"), OneType(f"{path}: image ids")
        for index, record in enumerate(read_json_array(path, f"{self.key}.regions", self.remedy)):
            image_id = _id(record, ("id", "image_id"), path, index)
            regions = entry(record, "regions", path, index, list)
            if image_id not in files:
                raise UserError(
                    f"{path}: entry {index} is about image {image_id}, which is not in {self.config.image_data}; "
                    "the two files are not of one release: download both again"
                )
            if file := files[image_id]:
                split = "val" if image_id in val_images else "train"
                images[split] += 1
                writer, before = writers[split], len(writers[split])
                for sample in _samples_of((image_type(image_id),), (self.data_dir / file,), regions, path, index):
                    sample_type(sample.sample_id)
                    writer.add(sample)
                counts["empty_regions"] += len(regions) - (len(writer) - before)
            else:
                counts["left_out_regions"] += len(regions)
        arrays = {f"{split}.{name}": array for split, writer in writers.items() for name, array in writer.arrays().items()}
        numbers = {f"{split}.num_images": np.array(number) for split, number in images.items()}
        return {**arrays, **numbers, "counts": np.array([counts[name] for name in COUNTS])}

    def _image_files(self, counts: dict[str, int]) -> dict[int | str, str]:
        """Each image's path below data_dir, "" for one that is left out and counted."""
        path = self.data_dir / self.config.image_data
        coco, flickr = (self._held_out(name) for name in ("exclude_coco", "exclude_flickr30k"))
        files: dict[int | str, str] = {}
        for index, record in enumerate(read_json_array(path, f"{self.key}.image_data", self.remedy)):
            image_id = _id(record, ("image_id", "id"), path, index)
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

    def _held_out(self, name: str) -> set[int]:
        """The numbers of the val and test images of the Karpathy file that the option `name` gives."""
        file = getattr(self.config, name)
        if file is None:
            return set()
        images = ImageSplits(self.data_dir / file, f"{self.key}.{name}", self.remedy).images(HELD_OUT)
        numbers = {number for number in map(_number, images) if number is not None}
        if not numbers:
            raise ConfigError(
                f"{self.key}.{name}",
                f"{file!r}: has no image with a number in {' or '.join(HELD_OUT)}, so none would be left out; set null",
            )
        return numbers

    def _val_images(self, images: list[int | str]) -> set[int | str]:
        count = self.config.num_val_images
        if count and count >= len(images):
            raise ConfigError(f"{self.key}.num_val_images", f"{count}: there are {len(images)} images; give fewer")
        return {images[(2 * number + 1) * len(images) // (2 * count)] for number in range(count)}


def _id(record: Any, names: tuple[str, str], path: Path, index: int) -> int | str:
    """The first of two names for an id: the releases of Visual Genome differ in them."""
    name = names[0] if isinstance(record, dict) and names[0] in record else names[1]
    return entry(record, name, path, index, (int, str))


def _number(image: int | float | str | None) -> int | None:
    """The number that an id, or an image's file name, ends with: COCO_val2014_000000000042.jpg, 42.0 and 42 are one image."""
    if isinstance(image, float):
        return int(image) if image.is_integer() else None
    digits = re.search(r"(\d+)$", PurePosixPath(str(image)).stem)
    return int(digits[1]) if digits else None


def _samples_of(ids: tuple[int | str], files: tuple[Path], regions: list[Any], path: Path, index: int) -> Iterator[Sample]:
    """An image's regions, but for those whose phrase is empty."""
    for region in regions:
        phrase = entry(region, "phrase", path, index, str)
        if phrase.strip():
            sample_id = _id(region, ("region_id", "id"), path, index)
            yield Sample(sample_id=sample_id, image_ids=ids, images=files, text=phrase)
