"""VQA 2.0 from its official files: questions, annotations and the COCO images (see datasets/vqa2/README.md)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelbert_plugin import registry
from pixelbert_plugin.data.builders.base import Builder, BuilderConfig
from pixelbert_plugin.data.files import field as entry
from pixelbert_plugin.data.files import read_json
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.schema import ConfigError
from pixelbert_plugin.types import Sample

REMEDY = "datasets/vqa2/README.md says where to get it"


@dataclass(kw_only=True)
class Source:
    """One official pair of files; paths are relative to env.data_dir."""

    questions: str = ""  # v2_OpenEnded_mscoco_*_questions.json
    annotations: str | None = None  # v2_mscoco_*_annotations.json; none for the test sets, whose answers are secret
    images: str = ""  # image path with {image_id}, such as coco/val2014/COCO_val2014_{image_id:012d}.jpg


@dataclass(kw_only=True)
class Vqa2Config(BuilderConfig):
    splits: dict[str, list[Source]] = field(default_factory=dict)  # a split's sources; datasets/vqa2/defaults.yaml has all


@registry.register_builder("vqa2")
class Vqa2Builder(Builder):
    """VQA 2.0: questions about COCO images with ten annotators' answers each."""

    Config = Vqa2Config

    def samples(self, split: str) -> Sequence[Sample]:
        key = f"dataset_config.vqa2.splits.{split}"
        if split not in self.config.splits:
            raise ConfigError(key, f"no such split (known: {', '.join(self.config.splits)}); {REMEDY}")
        samples = Vqa2Samples()
        for index, source in enumerate(self.config.splits[split]):
            self._read(source, samples, f"{key}[{index}]")
        return samples

    def _read(self, source: Source, samples: "Vqa2Samples", key: str) -> None:
        path = self.data_dir / source.questions
        questions = entry(read_json(path, f"{key}.questions", REMEDY), "questions", path, 0, list)
        annotations = None
        if source.annotations is not None:
            annotations = self._annotations(self.data_dir / source.annotations, f"{key}.annotations")
        seen: set[int] = set()
        for index, question in enumerate(questions):
            question_id, image_id = (entry(question, name, path, index, int) for name in ("question_id", "image_id"))
            if question_id in seen:
                raise UserError(f"{path}: question {question_id} stands twice; download the file again")
            seen.add(question_id)
            annotation = None
            if annotations is not None:
                if question_id not in annotations:
                    raise UserError(
                        f"{path}: question {question_id} has no answers in {source.annotations}; "
                        "the two files are not of one release: download both again"
                    )
                annotation = annotations.pop(question_id)
                if annotation[0] != image_id:
                    raise UserError(
                        f"{source.annotations}: question {question_id} is about image {annotation[0]}, but {path} "
                        f"says image {image_id}; the two files are not of one release: download both again"
                    )
            text = entry(question, "question", path, index, str)
            samples.add(question_id, image_id, text, annotation, self._image(source, key))
        if annotations:
            orphan = next(iter(annotations))
            raise UserError(
                f"{source.annotations}: answers question {orphan}, which is not in {path}; "
                "the two files are not of one release: download both again"
            )

    def _annotations(self, path: Path, key: str) -> dict[int, tuple]:
        """(image id, answers, main answer, answer type, question type) by question id."""
        result = {}
        for index, item in enumerate(entry(read_json(path, key, REMEDY), "annotations", path, 0, list)):
            answers = tuple(entry(answer, "answer", path, index, str) for answer in entry(item, "answers", path, index, list))
            question_id, image_id = (entry(item, name, path, index, int) for name in ("question_id", "image_id"))
            if question_id in result:
                raise UserError(f"{path}: question {question_id} stands twice; download the file again")
            if not answers:
                raise UserError(f"{path}: question {question_id} has no answers; download the file again")
            main = str(item.get("multiple_choice_answer") or max(answers, key=answers.count))
            kinds = (str(item.get("answer_type", "other")), str(item.get("question_type", "none of the above")))
            result[question_id] = (image_id, answers, main, *kinds)
        return result

    def _image(self, source: Source, key: str) -> str:
        try:
            source.images.format(image_id=1)
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(
                f"{key}.images", f"{source.images!r}: needs {{image_id}}, for instance {{image_id:012d}}"
            ) from error
        return str(self.data_dir / source.images)


class Vqa2Samples(Sequence):
    """Questions kept as columns with shared strings; a Sample is made when it is asked for."""

    def __init__(self):
        self._rows: list[tuple] = []

    def add(self, question_id: int, image_id: int, question: str, annotation: tuple | None, image: str) -> None:
        if annotation is not None:  # the same few thousand answers and types recur: keep each once
            _, answers, main, answer_type, question_type = annotation
            shared = (*map(sys.intern, answers),)
            annotation = (shared, *map(sys.intern, (main, answer_type, question_type)))
        self._rows.append((question_id, image_id, question, annotation, image))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        question_id, image_id, question, annotation, image = self._rows[index]
        answers, main, answer_type, question_type = annotation or ((), None, None, None)
        return Sample(
            sample_id=question_id,
            image_ids=(image_id,),
            images=(Path(image.format(image_id=image_id)),),
            text=question,
            answers=answers,
            answer=main,
            groups={} if annotation is None else {"answer_type": answer_type, "question_type": question_type},
        )
