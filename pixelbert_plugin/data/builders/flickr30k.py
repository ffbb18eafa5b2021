"""Flickr30K from Karpathy's file, which holds captions and splits (see datasets/flickr30k/README.md)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.base import SplitsBuilder, SplitsConfig, below, tell_empty
from pixelbert_plugin.data.builders.karpathy import SPLITS, image_file, read_images
from pixelbert_plugin.data.files import OneType
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, FilePath, nearest
from pixelbert_plugin.types import Sample

OWN = ("train", "val", "test")


@dataclass(kw_only=True)
class Flickr30kConfig(SplitsConfig):
    karpathy: FilePath = ""  # dataset_flickr30k.json, or another file of the same format; relative to env.data_dir
    images: FilePath = ""  # folder of the images; relative to env.data_dir
    splits: dict[str, list[str]] = field(default_factory=lambda: {name: [name] for name in OWN})  # the file's that make one


@registry.register_builder("flickr30k")
class Flickr30kBuilder(SplitsBuilder):
    """Flickr30K: five captions of each image; the sample id is the sentence's."""

    Config = Flickr30kConfig
    config: Flickr30kConfig
    defaults = "datasets/flickr30k/defaults.yaml"
    remedy = "datasets/flickr30k/README.md says where to get it"

    def source_files(self, own: str) -> list[tuple[str, Path]]:
        key = f"{self.key}.karpathy"
        return [(key, self.official(key, self.config.karpathy))]

    def options(self, own: str) -> Any:
        return [self.config.images, self.config.splits[own]]

    def read(self, own: str, left_out: list[Path]) -> Iterator[Sample]:
        key, path = self.source_files(own)[0]
        wanted, found = self.config.splits[own], set(SPLITS)
        seen, number, empty = set(), 0, 0  # sentences so far, of every split
        sample_type, image_type = OneType(f"{path}: sample ids"), OneType(f"{path}: image ids")
        for index, record in read_images(path, key, self.remedy):
            found.add(record["split"])
            image_id = index if record.get("imgid") is None else entry(record, "imgid", path, index, (int, str))
            file = self.data_dir / below(self.config.images, self.image_name(image_file(record), path, index))
            ids, images, has_text = (image_id,), (file,), False
            for sentence in entry(record, "sentences", path, index, list):
                has_id = isinstance(sentence, dict) and sentence.get("sentid") is not None
                sentence_id = entry(sentence, "sentid", path, index, (int, str)) if has_id else number
                number += 1
                if record["split"] not in wanted:
                    continue
                text = entry(sentence, "raw", path, index, str)
                if sentence_id in seen:
                    raise UserError(f"{path}: sentence {sentence_id!r} is duplicated; download the file again")
                seen.add(sentence_id)
                if text.strip():
                    has_text = True
                    image_type(image_id)
                    yield Sample(sample_id=sample_type(sentence_id), image_ids=ids, images=images, text=text)
                else:
                    empty += 1
            if record["split"] in wanted and not has_text:
                left_out.append(file)
        for name in wanted:
            if name not in found:
                raise ConfigError(
                    f"{self.key}.splits.{own}", f"{name!r}: {path} has no such split{nearest(name, sorted(found))}"
                )
        tell_empty(path, empty)
