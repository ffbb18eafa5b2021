"""VQA 2.0 from its official files: questions, annotations and the COCO images (see datasets/vqa2/README.md)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.base import SplitsBuilder, SplitsConfig, image_path
from pixelbert_plugin.data.builders.karpathy import ImageSplits, split_files
from pixelbert_plugin.data.files import OneType, as_text, read_json_arrays
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import FilePath
from pixelbert_plugin.types import Sample

GROUPS = {"answer_type": "other", "question_type": "none of the above"}  # and what stands where the file does not say
Annotation = tuple[int | str, tuple[str, ...], str, list[str]]  # image id, answers, main answer, GROUPS


@dataclass(kw_only=True)
class Source:
    """One official pair of files; paths are relative to env.data_dir."""

    questions: FilePath = ""  # v2_OpenEnded_mscoco_*_questions.json
    annotations: FilePath | None = None  # v2_mscoco_*_annotations.json; none for the test sets, whose answers are secret
    images: FilePath = ""  # image path with {image_id}, such as coco/val2014/COCO_val2014_{image_id:012d}.jpg
    karpathy_splits: list[str] = field(default_factory=list)  # only images that `karpathy` has in these; none: every image


@dataclass(kw_only=True)
class Vqa2Config(SplitsConfig):
    karpathy: FilePath | None = None  # dataset_coco.json, for karpathy_splits; relative to env.data_dir
    splits: dict[str, list[Source]] = field(default_factory=dict)  # a split's sources; datasets/vqa2/defaults.yaml has all


@registry.register_builder("vqa2")
class Vqa2Builder(SplitsBuilder):
    """VQA 2.0: questions about COCO images with ten annotators' answers each."""

    Config = Vqa2Config
    config: Vqa2Config
    defaults = "datasets/vqa2/defaults.yaml"
    remedy = "datasets/vqa2/README.md says where to get it"
    file_fields = ("questions", "annotations")

    def source_files(self, own: str) -> list[tuple[str, Path]]:
        return super().source_files(own) + split_files(self, self.config.karpathy, self.config.splits[own])

    def read(self, own: str, left_out: list[Path]) -> Iterator[Sample]:
        sources = self.config.splits[own]
        files = split_files(self, self.config.karpathy, sources)
        splits = next((ImageSplits(path, key, self.remedy) for key, path in files), None)
        types = [OneType(f"{self.key}.splits.{own}: {kind} ids") for kind in ("sample", "image")]
        for index, source in enumerate(sources):
            wanted = splits if source.karpathy_splits else None
            for sample in self._read(source, f"{self.key}.splits.{own}[{index}]", wanted):
                for one_type, value in zip(types, (sample.sample_id, *sample.image_ids), strict=True):
                    one_type(value)
                yield sample

    def _read(self, source: Source, key: str, splits: ImageSplits | None) -> Iterator[Sample]:
        path = self.data_dir / source.questions
        if splits is not None:
            splits.check(source.karpathy_splits, f"{key}.karpathy_splits")
        annotations = None
        if source.annotations is not None:
            annotations = self._annotations(self.data_dir / source.annotations, f"{key}.annotations")
        seen: set[int | str] = set()
        for index, (_, record) in enumerate(read_json_arrays(path, f"{key}.questions", self.remedy, "questions")):
            question_id, image_id = [entry(record, name, path, index, (int, str)) for name in ("question_id", "image_id")]
            text = entry(record, "question", path, index, str)
            if question_id in seen:
                raise UserError(f"{path}: question {question_id!r} is duplicated; download the file again")
            seen.add(question_id)
            annotation = None
            if annotations is not None:
                annotation = self._annotation(annotations, question_id, image_id, path, source)
            if self._is_wanted(image_id, source, splits, path):
                name = self.image_name(image_id, path, index)
                answers, answer, kinds = annotation or ((), None, ())
                yield Sample(
                    sample_id=question_id,
                    image_ids=(image_id,),
                    images=(self.data_dir / image_path(source.images, f"{key}.images", image_id=name),),
                    text=text,
                    answers=answers,
                    answer=answer,
                    groups=dict(zip(GROUPS, kinds, strict=False)),
                )
        if annotations:
            raise UserError(
                f"{source.annotations}: answers question {next(iter(annotations))}, which is not in {path}; "
                "the two files are not of one release: download both again"
            )

    def _is_wanted(self, image_id: int | str, source: Source, splits: ImageSplits | None, path: Path) -> bool:
        if splits is None:
            return True
        split = splits.of(image_id)
        if split is None:
            raise UserError(f"{path}: image {image_id} is not in {splits.path}; karpathy_splits need COCO's whole file")
        return split in source.karpathy_splits

    def _annotation(
        self, annotations: dict[int | str, Annotation], question_id: int | str, image_id: int | str, path: Path, source: Source
    ) -> tuple[tuple[str, ...], str, list[str]]:
        """The question's label, taken out of `annotations`."""
        if question_id not in annotations:
            raise UserError(
                f"{path}: question {question_id} has no answers in {source.annotations}; "
                "the two files are not of one release: download both again"
            )
        annotated_image, answers, main, kinds = annotations.pop(question_id)
        if annotated_image != image_id:
            raise UserError(
                f"{source.annotations}: question {question_id} is about image {annotated_image}, but {path} "
                f"says image {image_id}; the two files are not of one release: download both again"
            )
        return answers, main, kinds

    def _annotations(self, path: Path, key: str) -> dict[int | str, Annotation]:
        """The labels by question id."""
        result: dict[int | str, Annotation] = {}
        shared: dict[str, str] = {}  # the same few thousand answers recur: each is kept once
        for index, (_, item) in enumerate(read_json_arrays(path, key, self.remedy, "annotations")):
            given = entry(item, "answers", path, index, list)
            texts = [str(entry(answer, "answer", path, index, (str, int, float))) for answer in given]
            answers = tuple([shared.setdefault(text, text) for text in texts])
            question_id, image_id = [entry(item, name, path, index, (int, str)) for name in ("question_id", "image_id")]
            if question_id in result:
                raise UserError(f"{path}: question {question_id!r} is duplicated; download the file again")
            if not answers:
                raise UserError(f"{path}: question {question_id} has no answers; download the file again")
            main, *kinds = [
                str(default if item.get(name) in (None, "") else entry(item, name, path, index, (str, int, float)))
                for name, default in (("multiple_choice_answer", max(answers, key=answers.count)), *GROUPS.items())
            ]
            main, *groups = [shared.setdefault(text, text) for text in map(as_text, (main, *kinds))]
            result[question_id] = (image_id, answers, main, groups)
        return result
