"""Karpathy's files (`dataset_coco.json`, `dataset_flickr30k.json`): captions and the split of each image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.data.files import read_json_arrays
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, nearest

SPLITS = ("train", "restval", "val", "test")  # of the published files; restval: what COCO's val2014 has besides val and test


def read_images(path: Path, key: str, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place in the file, record) of each image; `filename` and `split` are there, the rest is for the caller to check."""
    for index, (_, record) in enumerate(read_json_arrays(path, key, remedy, "images")):
        entry(record, "filename", path, index, str)
        entry(record, "split", path, index, str)
        yield index, record


def image_file(record: dict[str, Any]) -> str:
    """The image's file below the folder of images: the file for COCO also names the folder in it."""
    folder = record.get("filepath")
    return f"{folder}/{record['filename']}" if folder else record["filename"]


def split_files(builder: Builder, karpathy: str | None, sources: list[Any]) -> list[tuple[str, Path]]:
    """The key and path of the option `karpathy` where one of the sources has `karpathy_splits`, else nothing."""
    if not any(source.karpathy_splits for source in sources):
        return []
    key = f"{builder.key}.karpathy"
    if karpathy is None:
        raise ConfigError(key, "is not set, but karpathy_splits need it: the path of dataset_coco.json")
    return [(key, builder.data_dir / karpathy)]


class ImageSplits:
    """The split of each image of a Karpathy file, by COCO id, or by file name where the file gives no ids."""

    def __init__(self, path: Path, key: str, remedy: str):
        self.path = path
        self._split_of: dict[int | str, str] = {}
        self._asked: set[int | str] = set()
        for index, record in read_images(path, key, remedy):
            has_id = record.get("cocoid") is not None
            image = entry(record, "cocoid", path, index, (int, str)) if has_id else record["filename"]
            split = self._split_of.setdefault(image, record["split"])
            if split != record["split"]:
                raise UserError(f"{path}: image {image!r} is in {split} and also in {record['split']}; download the file again")

    def of(self, image_id: int | str, file_name: str = "") -> str | None:
        """None where the file does not have the image."""
        image = image_id if image_id in self._split_of else file_name
        self._asked.add(image)
        return self._split_of.get(image)

    def has(self, image_id: int | str, file_name: str, splits: list[str]) -> bool:
        """Whether the image is in one of `splits`; asking does not count for `not_asked_for`."""
        return self._split_of.get(image_id if image_id in self._split_of else file_name) in splits

    def places(self) -> dict[int | str, int]:
        """Each image's place in the file: papers cut COCO's test into folds in this order."""
        return {image: place for place, image in enumerate(self._split_of)}

    def images(self, splits: list[str]) -> list[int | str]:
        """The images of `splits`."""
        return [image for image, split in self._split_of.items() if split in splits]

    def not_asked_for(self, splits: set[str]) -> list[int | str]:
        """The images of `splits` that `of` was never asked about."""
        return [image for image in self.images(list(splits)) if image not in self._asked]

    def check(self, wanted: list[str], key: str) -> None:
        """Raises ConfigError for a split that is neither a published one nor in the file."""
        known = {*SPLITS, *self._split_of.values()}
        for name in wanted:
            if name not in known:
                raise ConfigError(key, f"{name!r}: {self.path} has no such split{nearest(name, sorted(known))}")
