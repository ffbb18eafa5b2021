"""Visual Genome's question-answer pairs from the official files (see datasets/visual_genome_qa/README.md)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.genome import GenomeBuilder, GenomeConfig, id_of
from pixelbert_plugin.data.builders.karpathy import ImageSplits
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.registry.schema import ConfigError, FilePath
from pixelbert_plugin.types import Sample

VAL2014 = ("restval", "val", "test")  # Karpathy's splits that are COCO's val2014, all of which VQA 2.0's val asks about


@dataclass(kw_only=True)
class VisualGenomeQaConfig(GenomeConfig):
    questions: FilePath = ""  # question_answers.json
    exclude_coco_splits: list[str] = field(default_factory=lambda: [*VAL2014])  # of `exclude_coco`: those that are left out
    only_known_answers: bool = True  # learn only from questions whose answer VQA's vocabulary has (Teney et al. 2018)

    def check(self) -> None:
        super().check()
        if not self.exclude_coco_splits:
            raise ValueError("exclude_coco_splits: names no split; exclude_coco: null keeps all of COCO's images")


@registry.register_builder("visual_genome_qa")
class VisualGenomeQaBuilder(GenomeBuilder):
    """Visual Genome: questions about images, with one answer each; the sample id is the pair's (`qa_id`)."""

    Config = VisualGenomeQaConfig
    config: VisualGenomeQaConfig
    defaults = "datasets/visual_genome_qa/defaults.yaml"
    remedy = "datasets/visual_genome_qa/README.md says where to get it"
    annotations = unit = "questions"
    listed = "qas"
    lacking = "a word in the question or the answer"

    def options(self) -> list[Any]:
        return [*super().options(), self.config.exclude_coco_splits]

    @property
    def held_out_of_coco(self) -> tuple[str, ...]:
        return tuple(self.config.exclude_coco_splits)

    def check_splits(self, name: str, splits: ImageSplits) -> None:
        """A file that counts restval among train would leave none of it out, and nobody would know."""
        key = f"{self.key}.exclude_coco_splits"
        if name == "exclude_coco":
            splits.check(self.config.exclude_coco_splits, key)
            for wanted in self.config.exclude_coco_splits:
                if not splits.images([wanted]):
                    raise ConfigError(key, f"{wanted!r}: {splits.path} has no image in it; download the file again")

    def read_image(
        self, ids: tuple[int | str], files: tuple[Path], records: list[Any], path: Path, index: int
    ) -> Iterator[Sample]:
        for pair in records:
            question, answer = [entry(pair, name, path, index, str) for name in ("question", "answer")]
            if question.strip() and answer.strip():
                sample_id = id_of(pair, ("qa_id", "id"), path, index)
                yield Sample(sample_id=sample_id, image_ids=ids, images=files, text=question, answers=(answer,), answer=answer)
