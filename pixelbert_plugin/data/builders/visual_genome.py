"""Visual Genome's region descriptions from the official files (see datasets/visual_genome/README.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.genome import GenomeBuilder, GenomeConfig, id_of
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.registry.schema import FilePath
from pixelbert_plugin.types import Sample


@dataclass(kw_only=True)
class VisualGenomeConfig(GenomeConfig):
    regions: FilePath = ""  # region_descriptions.json


@registry.register_builder("visual_genome")
class VisualGenomeBuilder(GenomeBuilder):
    """Visual Genome: phrases that describe regions, each paired with the whole image; the sample id is the region's."""

    Config = VisualGenomeConfig
    config: VisualGenomeConfig
    defaults = "datasets/visual_genome/defaults.yaml"
    remedy = "datasets/visual_genome/README.md says where to get it"
    annotations = listed = unit = "regions"
    lacking = "a phrase"

    def read_image(
        self, ids: tuple[int | str], files: tuple[Path], records: list[Any], path: Path, index: int
    ) -> Iterator[Sample]:
        for region in records:
            phrase = entry(region, "phrase", path, index, str)
            if phrase.strip():
                sample_id = id_of(region, ("region_id", "id"), path, index)
                yield Sample(sample_id=sample_id, image_ids=ids, images=files, text=phrase)
