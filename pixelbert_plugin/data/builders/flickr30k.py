"""Flickr30K from Karpathy's file, which holds captions and splits (see datasets/flickr30k/README.md)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.base import BuilderConfig, SplitsBuilder, below, tell_empty
from pixelbert_plugin.data.builders.karpathy import SPLITS, image_file, read_images
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.data.pairs import PairsWriter
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, FilePath, nearest

OWN = ("train", "val", "test")


@dataclass(kw_only=True)
class Flickr30kConfig(BuilderConfig):
    karpathy: FilePath = ""  # dataset_flickr30k.json, or another file of the same format; relative to env.data_dir
    images: FilePath = ""  # folder of the images; relative to env.data_dir
    splits: dict[str, list[str]] = field(default_factory=lambda: {name: [name] for name in OWN})  # the file's that make one


@registry.register_builder("flickr30k")
class Flickr30kBuilder(SplitsBuilder):
    """Flickr30K: five captions of each image; the sample id is the sentence's."""

    Config = Flickr30kConfig
    defaults = "datasets/flickr30k/defaults.yaml"
    remedy = "datasets/flickr30k/README.md says where to get it"

    def source_files(self, own: str) -> list[tuple[str, Path]]:
        return [(f"{self.key}.karpathy", self.data_dir / self.config.karpathy)]

    def options(self, own: str) -> Any:
        return [self.config.images, self.config.splits[own]]

    def read(self, own: str) -> PairsWriter:
        key, path = self.source_files(own)[0]
        writer, wanted, found = PairsWriter(path), self.config.splits[own], set(SPLITS)
        seen, number, empty = set(), 0, 0  # sentences so far, of every split
        for index, record in read_images(path, key, self.remedy):
            found.add(record["split"])
            image_id = index if record.get("imgid") is None else entry(record, "imgid", path, index, (int, str))
            file = below(self.config.images, self.image_name(image_file(record), path, index))
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
                    writer.add(sentence_id, (writer.image(image_id, file),), text)
                else:
                    empty += 1
            if record["split"] in wanted and not writer.has_image(image_id):
                writer.leave_out(file)
        for name in wanted:
            if name not in found:
                raise ConfigError(
                    f"{self.key}.splits.{own}", f"{name!r}: {path} has no such split{nearest(name, sorted(found))}"
                )
        tell_empty(path, empty)
        return writer
