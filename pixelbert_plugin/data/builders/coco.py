"""COCO captions from the official caption files, split as Karpathy's file says (see datasets/coco/README.md)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.data.blocks import BlockWriter
from pixelbert_plugin.data.builders.base import SplitsBuilder, SplitsConfig, below, image_path, tell_empty
from pixelbert_plugin.data.builders.karpathy import ImageSplits, split_files
from pixelbert_plugin.data.files import OneType, read_json_arrays
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import FilePath
from pixelbert_plugin.types import Sample


@dataclass(kw_only=True)
class CaptionSource:
    """One caption file; paths are relative to env.data_dir."""

    captions: FilePath = ""  # captions_*2014.json, or another file of the same format
    images: FilePath = ""  # folder of its images, or a pattern of the path with {image_id} or {file_name}
    karpathy_splits: list[str] = field(default_factory=list)  # only images that `karpathy` has in these; none: every image


@dataclass(kw_only=True)
class CocoConfig(SplitsConfig):
    karpathy: FilePath | None = None  # dataset_coco.json, for karpathy_splits; relative to env.data_dir
    splits: dict[str, list[CaptionSource]] = field(default_factory=dict)  # datasets/coco/defaults.yaml has the official ones


@registry.register_builder("coco")
class CocoBuilder(SplitsBuilder):
    """COCO captions, five or more of each image; the sample id is the caption's."""

    Config = CocoConfig
    config: CocoConfig
    defaults = "datasets/coco/defaults.yaml"
    remedy = "datasets/coco/README.md says where to get it"
    file_fields = ("captions",)

    def source_files(self, own: str) -> list[tuple[str, Path]]:
        return super().source_files(own) + split_files(self, self.config.karpathy, self.config.splits[own])

    def read(self, own: str, left_out: list[Path]) -> Iterator[Sample]:
        sources = self.config.splits[own]
        files = split_files(self, self.config.karpathy, sources)
        splits = next((ImageSplits(path, key, self.remedy) for key, path in files), None)
        with_text: set[int | str] = set()  # images
        for index, source in enumerate(sources):
            wanted = splits if source.karpathy_splits else None
            yield from self._read(source, f"{self.key}.splits.{own}[{index}]", wanted, with_text, left_out)
        chosen = {name for source in sources for name in source.karpathy_splits}
        if splits and (missing := splits.not_asked_for(chosen)):
            raise UserError(
                f"{splits.path}: image {missing[0]} has no caption in {', '.join(source.captions for source in sources)} "
                f"({len(missing)} such images); the files are not of one release: download them again"
            )

    def _read(
        self, source: CaptionSource, key: str, splits: ImageSplits | None, with_text: set[int | str], left_out: list[Path]
    ) -> Iterator[Sample]:
        path = self.data_dir / source.captions
        if splits is not None:
            splits.check(source.karpathy_splits, f"{key}.karpathy_splits")
        images: dict[int | str, tuple[str, str]] = {}  # file name, and path below data_dir
        types = {"id": OneType(path), "image_id": OneType(path)}
        # of each annotation its id, its image's, as one object for all captions of an image, and its caption, as bytes
        ids: dict[int | str, int | str] = {}
        image_ids: dict[int | str, int | str] = {}
        captions = BlockWriter()
        for name, record in read_json_arrays(path, f"{key}.captions", self.remedy, "images", "annotations"):
            if name == "images":
                image_id = entry(record, "id", path, len(images), (int, str), "image")
                if image_id in images:
                    raise UserError(f"{path}: image {image_id!r} is duplicated; download the file again")
                for name in (image_id, record.get("file_name")):
                    self.image_name(name, path, len(images), "image")
                images[image_id] = _image(source, record, key, path, len(images))
            else:
                where = (path, len(captions))
                own, image_id = (one(entry(record, name, *where, (int, str), "annotation")) for name, one in types.items())
                if own in ids:
                    raise UserError(f"{path}: annotation {own!r} is duplicated; download the file again")
                ids[own] = image_ids.setdefault(image_id, image_id)
                captions.append(entry(record, "caption", *where, str, "annotation"))
        places, empty = {} if splits is None else splits.places(), 0
        rows: list[tuple[int, int, int | str, int | str]] = []  # the image's place in Karpathy's file, row, ids
        for row, (caption_id, image_id) in enumerate(ids.items()):
            if image_id not in images:
                raise UserError(
                    f"{path}: annotation {caption_id!r} is about image {image_id!r}, which is not among its images; "
                    "download the file again"
                )
            file_name, _ = images[image_id]
            if splits is None or splits.of(image_id, file_name) in source.karpathy_splits:
                rows.append((places.get(image_id, places.get(file_name, 0)), row, caption_id, image_id))
        for _, row, caption_id, image_id in sorted(rows):
            text = captions[row]
            if text.strip():
                with_text.add(image_id)
                path_of_image = self.data_dir / images[image_id][1]
                yield Sample(sample_id=caption_id, image_ids=(image_id,), images=(path_of_image,), text=text)
            else:
                empty += 1
        tell_empty(path, empty)
        for image_id, (file_name, file) in images.items():
            is_wanted = splits is None or splits.has(image_id, file_name, source.karpathy_splits)
            if is_wanted and image_id not in with_text:
                left_out.append(self.data_dir / file)


def _image(source: CaptionSource, record: dict[str, Any], key: str, path: Path, index: int) -> tuple[str, str]:
    """The image's file name and its path below data_dir."""
    if "{" in source.images:
        needs_name = "{file_name" in source.images
        file_name = entry(record, "file_name", path, index, str, "image") if needs_name else record.get("file_name", "")
        return file_name, image_path(source.images, f"{key}.images", image_id=record["id"], file_name=file_name)
    file_name = entry(record, "file_name", path, index, str, "image")
    return file_name, below(source.images, file_name)
