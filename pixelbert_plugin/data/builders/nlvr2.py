"""NLVR2 from its official files of JSON lines: statements about pairs of photographs (see datasets/nlvr2/README.md)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.base import SplitsBuilder, SplitsConfig, image_path
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.data.files import read_json_lines
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, FilePath
from pixelbert_plugin.types import Sample

LABELS = {"true": "True", "false": "False"}  # the official files have "True" and "False"; NLVR's first edition "true"


@dataclass(kw_only=True)
class StatementSource:
    """One official file; paths are relative to env.data_dir."""

    statements: FilePath = ""  # data/dev.json and so on
    images: FilePath = ""  # path of an image with {stem} (dev-850-0), {side} (0 left, 1 right) and, in train, {directory}


@dataclass(kw_only=True)
class Nlvr2Config(SplitsConfig):
    splits: dict[str, list[StatementSource]] = field(default_factory=dict)  # datasets/nlvr2/defaults.yaml has the official ones


@registry.register_builder("nlvr2")
class Nlvr2Builder(SplitsBuilder):
    """NLVR2: is a statement true of a left and a right photograph? The sample id is the official identifier."""

    Config = Nlvr2Config
    config: Nlvr2Config
    defaults = "datasets/nlvr2/defaults.yaml"
    remedy = "datasets/nlvr2/README.md says where to get it"
    file_fields = ("statements",)

    def read(self, own: str, left_out: list[Path]) -> Iterator[Sample]:
        seen: set[str] = set()
        for source, (key, path) in zip(self.config.splits[own], self.source_files(own), strict=True):
            images_key = key.removesuffix("statements") + "images"
            if missing := [name for name in ("{stem}", "{side}") if name not in source.images]:
                raise ConfigError(images_key, f"{source.images!r}: without {missing[0]} two images would be one file; add it")
            is_labelled: bool | None = None  # as the file's first line is
            for line, record in read_json_lines(path, key, self.remedy):
                identifier = self._identifier(record, path, line, seen)
                place = {"stem": identifier.rpartition("-")[0]}  # without the sentence's number
                if "{directory}" in source.images:
                    place["directory"] = entry(record, "directory", path, line, (int, str), "line")
                for name in place.values():
                    self.image_name(name, path, line, "line")
                files = [image_path(source.images, images_key, side=side, **place) for side in (0, 1)]
                text, label = entry(record, "sentence", path, line, str, "line"), self._label(record, identifier, path, line)
                is_labelled = label is not None if is_labelled is None else is_labelled
                if is_labelled != (label is not None):
                    told = (
                        ("no label", "lines before have") if is_labelled else (f"the label {label}", "lines before have none")
                    )
                    raise UserError(
                        f"{path}, line {line}: {identifier} has {told[0]}, and {told[1]}; give all lines one, or none"
                    )
                yield Sample(
                    sample_id=identifier,
                    image_ids=(f"{place['stem']}-img0", f"{place['stem']}-img1"),
                    images=(self.data_dir / files[0], self.data_dir / files[1]),
                    text=text,
                    answers=() if label is None else (label,),
                    answer=label,
                )

    def _identifier(self, record: Any, path: Path, line: int, seen: set[str]) -> str:
        identifier = entry(record, "identifier", path, line, str, "line")
        if len(identifier.split("-")) < 4:
            raise UserError(f"{path}, line {line}: identifier {identifier!r} is not split-set-pair-sentence")
        if identifier in seen:
            raise UserError(f"{path}, line {line}: {identifier} is duplicated; download the file again")
        seen.add(identifier)
        return identifier

    def _label(self, record: dict[str, Any], identifier: str, path: Path, line: int) -> str | None:
        """None where the file holds no labels."""
        label = record.get("label")
        if label is None:
            return None
        if str(label).lower() not in LABELS:
            raise UserError(f"{path}, line {line}: the label of {identifier} is {label!r}, neither True nor False")
        return LABELS[str(label).lower()]
