"""Pairs of a text and its images as columns: M samples, N images of each, I images in all, A answers in all, G groups.

Millions of them take the memory of their texts and no Python object each: a Sample is made when it is asked for.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from pixelbert_plugin.data.columns import Arrays, CodeBook, IdWriter, TextColumn, TextWriter, as_array, column
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample

ROWS = 4096  # whose labels are read at once


class Pairs(Sequence):
    """The samples that a `PairsWriter` collected. `root` is the folder that image files are relative to."""

    def __init__(self, arrays: Arrays, root: Path):
        self.root = root
        self.image_rows_MN = arrays["image_rows"]  # int32, each sample's images
        self.image_files = column(arrays, "image_files")  # I texts, below root
        self._sample_ids, self.texts = column(arrays, "sample_ids"), column(arrays, "texts")
        self._image_ids = column(arrays, "image_ids")
        self.left_out = column(arrays, "left_out")  # files of images that have no text
        self._labels = Labels(arrays) if "answers" in arrays else None

    def __len__(self) -> int:
        return len(self.image_rows_MN)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        images = self.image_rows_MN[row].tolist()
        return Sample(
            sample_id=self._sample_ids.item(row),
            image_ids=tuple([self._image_ids.item(image) for image in images]),
            images=tuple([self.root / self.image_files.item(image) for image in images]),
            text=self.texts.item(row),
            **(self._labels.of(row) if self._labels else {}),
        )

    def labels(self) -> Iterator[tuple[tuple[str, ...], str | None]]:
        """Each sample's answers and answer; see `labels` below."""
        return iter(self._labels) if self._labels else repeat(((), None), len(self))

    def columns(self) -> dict[str, list[np.ndarray]]:
        """Everything that the samples hold, by what it is, as arrays (for fingerprints)."""
        return {
            "ids": _arrays(self._sample_ids),
            "texts": _arrays(self.texts),
            "answers": self._labels.arrays() if self._labels else [],
            "images of the samples": [self.image_rows_MN, *_arrays(self._image_ids), *_arrays(self.image_files)],
        }

    @property
    def ids_M(self) -> np.ndarray:
        """M sample ids, int64 or str."""
        ids = self._sample_ids
        return ids if isinstance(ids, np.ndarray) else np.array(list(ids), dtype=np.str_)

    @property
    def image_numbers_M(self) -> np.ndarray:
        """M ints, equal for samples with the same images."""
        if self.image_rows_MN.shape[1] == 1:
            return self.image_rows_MN[:, 0]
        return np.unique(self.image_rows_MN, axis=0, return_inverse=True)[1].reshape(-1)


class Labels:
    """Answers and groups by sample, as codes of strings."""

    def __init__(self, arrays: Arrays):
        self._words = column(arrays, "words")
        self._answers_A, self._offsets_M1 = arrays["answers"], arrays["answers_offsets"]  # int32, int64
        self._answer_M, self._groups_MG = arrays["answer"], arrays["groups"]  # int32, -1 where there is none
        self._names = list(column(arrays, "group_names"))

    def of(self, row: int) -> dict:
        """The fields of Sample that a label fills."""
        word, answer = self._words.item, self._answer_M.item(row)
        codes = self._answers_A[self._offsets_M1.item(row) : self._offsets_M1.item(row + 1)].tolist()
        groups = zip(self._names, self._groups_MG[row].tolist(), strict=True)
        return {
            "answers": tuple([word(code) for code in codes]),
            "answer": None if answer < 0 else word(answer),
            "groups": {name: word(code) for name, code in groups if code >= 0},
        }

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], str | None]]:
        words = [*self._words, None]  # -1 is none
        of_answer = words.__getitem__
        start = 0
        for first in range(0, len(self._answer_M), ROWS):
            ends = self._offsets_M1[first + 1 : first + 1 + ROWS].tolist()
            answers = self._answers_A[start : ends[-1]].tolist()
            base = start
            for end, answer in zip(ends, self._answer_M[first : first + ROWS].tolist(), strict=True):
                yield tuple(map(of_answer, answers[start - base : end - base])), words[answer]
                start = end

    def arrays(self) -> list[np.ndarray]:
        return [self._answers_A, self._offsets_M1, self._answer_M, self._groups_MG, *_arrays(self._words)]


def texts(samples: Sequence[Sample]) -> Iterable[str]:
    """The text of every sample, of columns without a Sample made for each."""
    return samples.texts if isinstance(samples, Pairs) else (sample.text for sample in samples)


def labels(samples: Sequence[Sample]) -> Iterable[tuple[tuple[str, ...], str | None]]:
    """`answers` and `answer` of every sample, of columns without a Sample made for each."""
    return samples.labels() if isinstance(samples, Pairs) else ((sample.answers, sample.answer) for sample in samples)


def image_paths(samples: Sequence[Sample]) -> list[Path]:
    """Every image of the samples, once, in the order of their first use."""
    if isinstance(samples, Pairs):
        return [samples.root / file for file in samples.image_files]
    return list(dict.fromkeys(Path(path) for sample in samples for path in sample.images))


def _arrays(values: np.ndarray | TextColumn) -> list[np.ndarray]:
    return [values] if isinstance(values, np.ndarray) else [values.bytes_T, values.offsets_M1]


class PairsWriter:
    """Collects samples and their images, which are numbered in the order of their first use.

    `source` (a config key, or a file) is what errors name.
    """

    def __init__(self, source: object, group_names: tuple[str, ...] = ()):
        self.source, self.group_names = source, group_names
        self._sample_ids, self._image_ids = IdWriter(f"{source}: sample ids"), IdWriter(f"{source}: image ids")
        self._texts, self._files, self._left_out = TextWriter(), TextWriter(), TextWriter()
        self._rows = array("i")  # M · N
        self._row_of: dict[int | str, int] = {}
        self._num_images = 1  # N
        self._book = CodeBook()
        self._answers, self._offsets, self._answer, self._groups = array("i"), array("q", [0]), array("i"), array("i")

    def __len__(self) -> int:
        return len(self._texts)

    def image(self, image_id: int | str, file: str) -> int:
        """The row of an image; `file` is relative to the data folder. Raises UserError where the id is another file's too."""
        row = self._row_of.setdefault(image_id, len(self._row_of))
        if row == len(self._files):
            self._image_ids.append(image_id)
            self._files.append(file)
        elif self._files.item(row) != file:
            raise UserError(
                f"{self.source}: image {image_id!r} is {self._files.item(row)} and also {file}; texts of the one would be put "
                "to the other: give every image an id of its own"
            )
        return row

    def has_image(self, image_id: int | str) -> bool:
        """Whether `image` was called for it."""
        return image_id in self._row_of

    def add(self, sample_id: int | str, images: tuple[int, ...], text: str) -> None:
        """A sample; `images` are rows as `image` gave them, equally many for every sample."""
        if not isinstance(text, str):
            raise UserError(f"{self.source}: row {len(self)} (sample {sample_id!r}): text is {text!r:.80}, not str")
        self._sample_ids.append(sample_id)
        self._texts.append(text)
        self._rows.extend(images)
        self._num_images = len(images)

    def leave_out(self, file: str) -> None:
        """Note an image of the split that has no text, and so no sample."""
        self._left_out.append(file)

    def label(self, answers: tuple[str, ...] = (), answer: str | None = None, groups: tuple[str, ...] = ()) -> None:
        """The label of the sample added last; where one sample has a label, call it for every one. `groups`: G or none."""
        code, texts = self._book.code, (*answers, *groups, *(() if answer is None else (answer,)))
        if isinstance(answers, str) or not all(isinstance(text, str) for text in texts):
            label = f"answers {answers!r:.80}, answer {answer!r:.80} and groups {groups!r:.80}"
            raise UserError(f"{self.source}: row {len(self) - 1}: {label} must be a tuple of str, a str and a tuple of str")
        self._answers.extend(map(code, answers))
        self._offsets.append(len(self._answers))
        self._answer.append(-1 if answer is None else code(answer))
        self._groups.extend(map(code, groups) if groups else [-1] * len(self.group_names))

    def arrays(self) -> Arrays:
        """The columns, for `Pairs`; without a copy."""
        names = TextWriter()
        for name in self.group_names:
            names.append(name)
        labels = {
            "answers": as_array(self._answers),
            "answers_offsets": as_array(self._offsets),
            "answer": as_array(self._answer),
            "groups": as_array(self._groups).reshape(len(self._answer), len(self.group_names)),
            **names.arrays("group_names"),
            **self._book.arrays("words"),
        }
        return {
            **self._sample_ids.arrays("sample_ids"),
            **self._texts.arrays("texts"),
            "image_rows": as_array(self._rows).reshape(len(self), self._num_images),
            **self._image_ids.arrays("image_ids"),
            **self._left_out.arrays("left_out"),
            **self._files.arrays("image_files"),
            **(labels if len(self._answer) else {}),
        }
