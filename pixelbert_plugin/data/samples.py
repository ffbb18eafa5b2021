"""The samples of a split as a few arrays: one block of bytes and offsets, and a table of their images. M samples.

Whatever iterable of Sample a builder gives becomes this. Millions of samples take the memory of their texts and no Python
object each: forked workers share the arrays, a cache maps them from disk, and a Sample is made when it is asked for.

    records       of each sample its head, which is the id as JSON, then its text
    words         what answers and groups are made of, each once; the next three have their numbers, and are empty without any
    answers       of each sample those of its `answers`, one after the other, and where they end
    answer_M      that of its `answer`, -1 for none
    groups        of each sample those of its `groups`, name and kind in turn, and where they end
    images_M      which images a sample has: a number, by first use, equal for samples with the same images
    image sets    the images of each such number, as rows of the table of images, which are in the order of their first use
    images        their ids, also JSON, and their files, below the data set's root
"""

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin.data.blocks import Arrays, Block, BlockWriter, Rows, as_offsets
from pixelbert_plugin.data.checked import BadSampleError, checked, is_plain
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.types import Sample

CHUNK = 4096  # samples that are written or read at once
DIGESTED = ("ids", "texts", "answers", "images of the samples")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
Images = tuple[tuple[int | str, ...], tuple[Path, ...]]  # a sample's: ids and files
Label = tuple[list[int], int, list[int]]  # of a sample, the numbers of its answers, of its main one and of its groups' words
NO_LABEL: Label = ([], -1, [])


class Samples(Rows[Sample]):
    """M samples of `arrays`, as a `SamplesWriter` made them; image files are below `root`, or have paths of their own."""

    def __init__(self, arrays: Arrays, root: Path = Path()):
        self.root = root
        self.images_M = arrays["images_of_samples"]  # int32
        self.left_out = Block.of(arrays, "left_out")  # files of images that have no text
        self._records, self._heads_M = Block.of(arrays, "records"), arrays["heads"]  # in bytes
        self._words = Block.of(arrays, "words")
        self._answers, self._answers_offsets = arrays["answers"], arrays["answers_offsets"]
        self._answer_M = arrays["answer"]
        self._groups, self._groups_offsets = arrays["groups"], arrays["groups_offsets"]
        self._image_ids, self._files = Block.of(arrays, "image_ids"), Block.of(arrays, "files")
        self._sets, self._sets_offsets = arrays["image_sets"], arrays["image_sets_offsets"]
        self._digests, self._repeated = arrays["digests"], arrays["repeated"]

    @classmethod
    def of(cls, samples: Iterable[Sample], what: str = "the samples") -> "Samples":
        """Any samples. Raises UserError with `what` and the row for one that cannot be made or used."""
        return cls(collect(samples, what))

    def __len__(self) -> int:
        return len(self._heads_M)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        content, length = self._records.content(row), self._heads_M.item(row)
        images = self._images(self.images_M.item(row))
        (label,) = self._labels(row, row + 1)
        return _sample(_value(content[:length]), content[length:].decode(), images, label, self._words)

    def __iter__(self) -> Iterator[Sample]:
        """All of them, CHUNK at once: several times as fast as one by one."""
        words, last = [*self._words], -1
        images: Images = ((), ())
        for first in range(0, len(self), CHUNK):
            contents = list(self._contents(first))
            ids = json.loads(b"[" + b",".join([content[:head] for content, head in contents]) + b"]")
            numbers, labels = self.images_M[first : first + CHUNK].tolist(), self._labels(first, first + len(ids))
            for (content, head), sample_id, number, label in zip(contents, ids, numbers, labels, strict=True):
                if number != last:
                    last, images = number, self._images(number)
                yield _sample(sample_id, content[head:].decode(), images, label, words)

    def text(self, row: int) -> str:
        return self._records.content(row)[self._heads_M.item(row) :].decode()

    def texts(self, is_wanted_M: np.ndarray | None = None) -> Iterator[str]:
        """The text of every sample, or of those that are wanted; chunks without one are not looked at."""
        for first in range(0, len(self), CHUNK):
            wanted = None if is_wanted_M is None else is_wanted_M[first : first + CHUNK]
            if wanted is None or wanted.any():
                texts = (content[head:] for content, head in self._contents(first))
                yield from map(bytes.decode, texts if wanted is None else compress(texts, wanted.tolist()))

    @property
    def text_bytes_M(self) -> np.ndarray:
        """M int64: how many bytes of UTF-8 each text has."""
        return np.diff(self._records.offsets_M1.astype(np.int64)) - self._heads_M

    def answer_counts(self) -> tuple[Counter[str], Counter[str]]:
        """How often each answer is one of a sample's `answers`, and how often its `answer`; both in the order of first use."""
        answers = self._answer_M[self._answer_M >= 0]
        return self._counted(self._answers), self._counted(answers)

    def answer_sets(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """The distinct `answers`, in whatever order, and how many samples have them; samples without are left out."""
        words, lengths_M = [*self._words], np.diff(self._answers_offsets.astype(np.int64))
        for length in np.unique(lengths_M[lengths_M > 0]).tolist():
            starts = self._answers_offsets[:-1][lengths_M == length].astype(np.int64)
            sets = np.sort(self._answers[starts[:, None] + np.arange(length)], axis=1)
            content, size = sets.tobytes(), sets.itemsize * length
            for codes, count in Counter([content[at : at + size] for at in range(0, len(content), size)]).items():
                yield tuple([words[code] for code in np.frombuffer(codes, sets.dtype).tolist()]), count

    def labelled(self, group: str) -> Iterator[tuple[str, str, str | None]]:
        """Of every sample its text, its kind in `group` ("": none) and its `answer`, without making a Sample."""
        words, rows = [*self._words], len(self)
        answers = [None if code < 0 else words[code] for code in self._answer_M.tolist()] or [None] * rows
        kinds, names = [""] * rows, self._groups[::2]
        if group in words:
            is_wanted = names == words.index(group)
            groups_M = np.repeat(np.arange(rows), np.diff(self._groups_offsets.astype(np.int64) // 2))
            for row, code in zip(groups_M[is_wanted].tolist(), self._groups[1::2][is_wanted].tolist(), strict=True):
                kinds[row] = words[code]
        return zip(self.texts(), kinds, answers, strict=True)

    def is_answered_M(self, is_known: Callable[[str], bool]) -> np.ndarray:
        """M bool: whether one of a sample's `answers` is known; each distinct answer is asked about once."""
        is_known_W = np.zeros(len(self._words), np.int64)
        for word in np.unique(self._answers).tolist():
            is_known_W[word] = is_known(self._words[word])
        if not len(self._answers):
            return np.zeros(len(self), bool)
        known = np.r_[0, np.cumsum(is_known_W[self._answers])]  # among the answers so far
        return np.diff(known[self._answers_offsets]) > 0

    def kept(self, is_wanted_M: np.ndarray) -> Arrays:
        """The arrays of the samples that are wanted, which are a data set of their own."""
        return collect(compress(self, is_wanted_M.tolist()), root=self.root)

    @property
    def num_images(self) -> int:
        return len(self._files)

    def image_path(self, row: int) -> Path:
        """The file of an image; images are numbered in the order of their first use."""
        return self.root / self._files[row]

    def image_paths(self) -> list[Path]:
        """Every image of the samples, once."""
        return [self.image_path(row) for row in range(self.num_images)]

    def image_names(self) -> set[str]:
        """The paths of all images, as text: quick to compare where there are 100,000."""
        root = str(self.root)
        return {os.path.join(root, name) for name in self._files}

    def folders(self) -> list[Path]:
        """The folders of the images, each once."""
        return [self.root / folder for folder in sorted(set(map(os.path.dirname, self._files)))]

    @property
    def first_image_of_set(self) -> np.ndarray:
        """By the numbers of `images_M`: the row of the first image."""
        return self._sets[self._sets_offsets[:-1]]

    def first_with_image(self, image: int) -> int:
        """The first sample that has the image of this row."""
        number = int(np.searchsorted(self._sets_offsets, np.flatnonzero(self._sets == image)[0], side="right")) - 1
        return int(np.argmax(self.images_M == number))

    @property
    def repeated_id(self) -> int | str | None:
        """An id that is another sample's too, if there is one."""
        return self[int(self._repeated[0])].sample_id if len(self._repeated) else None

    def digest_of_files(self) -> list[str]:
        """What says which image files the samples have, in their order, below `root`."""
        arrays = (self._files.bytes_T, self._files.offsets_M1, self._sets, self._sets_offsets)
        return [hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest() for values in arrays]

    def digests(self) -> dict[str, str]:
        """By what it is of, a digest of all that the samples hold; of images their ids and names, wherever they lie."""
        return {name: digest.tobytes().hex() for name, digest in zip(DIGESTED, self._digests, strict=True)}

    def _images(self, number: int) -> Images:
        """Ids and files of the images that `images_M` has this number for."""
        rows = self._sets[self._sets_offsets.item(number) : self._sets_offsets.item(number + 1)].tolist()
        ids, files = self._image_ids.contents(rows), self._files.texts(rows)
        return tuple(map(_value, ids)), tuple([self.root / file for file in files])

    def _labels(self, start: int, stop: int) -> Iterable[Label]:
        """Of the samples `start` … `stop` - 1."""
        if not len(self._words):
            return repeat(NO_LABEL, stop - start)
        answers, groups = (
            _parts(values, offsets[start : stop + 1].tolist())
            for values, offsets in ((self._answers, self._answers_offsets), (self._groups, self._groups_offsets))
        )
        return zip(answers, self._answer_M[start:stop].tolist(), groups, strict=True)

    def _counted(self, codes: np.ndarray) -> Counter[str]:
        found, first, counts = np.unique(codes, return_index=True, return_counts=True)
        order = np.argsort(first)
        return Counter(
            {self._words[code]: count for code, count in zip(found[order].tolist(), counts[order].tolist(), strict=True)}
        )

    def _contents(self, first: int) -> Iterator[tuple[bytes, int]]:
        """Head and text of each of CHUNK samples, and how long the head is."""
        ends = self._records.offsets_M1[first : first + CHUNK + 1].tolist()
        content, base = self._records.bytes_T[ends[0] : ends[-1]].tobytes(), ends[0]
        for start, end, head in zip(ends[:-1], ends[1:], self._heads_M[first : first + CHUNK].tolist(), strict=True):
            yield content[start - base : end - base], head


class SamplesWriter:
    """Collects samples as arrays. `what` names them in errors; files below `root` are kept as they are named from there."""

    def __init__(self, what: str, root: Path = Path()):
        self._what, self._root = what, root
        self._records, self._head_bytes = BlockWriter(), array("I")
        self._numbers = array("i")  # M, of each sample's set of images
        self._sets, self._sets_offsets = array("i"), array("q", [0])
        self._set_of: dict[Any, int] = {}  # by the image's id, or the ids of several
        self._row_of: dict[int | str, int] = {}  # of each image, by its id
        self._image_ids, self._files, self._left_out = BlockWriter(), BlockWriter(), BlockWriter()
        self._words: dict[str, int] = {}  # numbered
        self._answers, self._answers_offsets = array("i"), array("q", [0])  # this and what follows: nothing before a label
        self._answer = array("i")
        self._groups, self._groups_offsets = array("i"), array("q", [0])
        self._hashes = array("q")  # of ids
        self._digests = [hashlib.blake2b(digest_size=16) for _ in DIGESTED]
        self._ids: list[str] = []  # of those that are not written yet
        self._labels: list[str] = []
        self._texts: list[bytes] = []
        self._last: tuple[Any, Any, int] = ((), (), 0)  # image ids and files of the last sample, and their number

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, sample: Sample) -> None:
        """Raises UserError with the row for a sample that cannot be used, and for an image id of two files."""
        try:
            ids, images, number = self._last
            if not (is_plain(sample) and sample.images is images and sample.image_ids is ids):
                sample = checked(sample)
                number = self._number(sample.image_ids, sample.images)
                self._last = sample.image_ids, sample.images, number
        except BadSampleError as error:
            raise UserError(self.line(str(error))) from error
        sample_id, label = sample.sample_id, ""
        if sample.answers or sample.answer is not None or sample.groups:
            answers, groups = self._word_numbers(sample.answers), self._word_numbers(chain.from_iterable(sample.groups.items()))
            answer = -1 if sample.answer is None else self._word_numbers([sample.answer])[0]
            shown = "null" if answer < 0 else answer
            label = f",[{','.join(map(str, answers))}],{shown},[{','.join(map(str, groups))}]"
            self._label(answers, answer, groups)
        elif self._words:
            self._label(*NO_LABEL)
        self._numbers.append(number)
        self._hashes.append(hash(sample_id))
        self._ids.append(str(sample_id) if type(sample_id) is int else _to_json(sample_id))
        self._labels.append(label)
        self._texts.append(sample.text.encode())
        if len(self._ids) == CHUNK:
            self._write()

    def leave_out(self, image: Path) -> None:
        """Note an image of the split that has no text, and so no sample."""
        self._left_out.append(self._below_root(image))

    def line(self, reason: str) -> str:
        """An error about the sample that comes next."""
        reason = " ".join(reason.encode(errors="backslashreplace").decode().split())
        return f"datasets: row {len(self)} of {self._what}: {reason}"

    def arrays(self) -> Arrays:
        """For `Samples`, without a copy of the texts."""
        self._write()
        heads_M = np.frombuffer(self._head_bytes, np.uint32)
        largest = int(heads_M.max()) if len(heads_M) else 0
        words = BlockWriter()
        words.extend([word.encode() for word in self._words])
        _, _, answers, images = self._digests
        for digest, values in (
            (answers, words.block().bytes_T),
            (answers, words.block().offsets_M1),
            (images, np.frombuffer(self._numbers, np.int32)),
            (images, np.frombuffer(self._sets, np.int32)),
            (images, as_offsets(self._sets_offsets)),
        ):
            digest.update(f"\n{values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        arrays = {
            **self._records.block().arrays("records"),
            "heads": heads_M.astype(np.min_scalar_type(largest)),
            "images_of_samples": np.frombuffer(self._numbers, np.int32),
            "image_sets": np.frombuffer(self._sets, np.int32),
            "image_sets_offsets": as_offsets(self._sets_offsets),
            **self._image_ids.block().arrays("image_ids"),
            **self._files.block().arrays("files"),
            **words.block().arrays("words"),
            **self._label_arrays(),
            **self._left_out.block().arrays("left_out"),
            "digests": np.array([list(digest.digest()) for digest in self._digests], np.uint8),
            "repeated": np.zeros(0, np.int64),
        }
        return {**arrays, "repeated": self._repeated(Samples(arrays))}

    def _write(self) -> None:
        heads = [one.encode() for one in self._ids]
        self._records.extend([head + text for head, text in zip(heads, self._texts, strict=True)])
        self._head_bytes.extend(map(len, heads))
        ids, texts, answers, _ = self._digests
        ids.update("".join([f"{one}\n" for one in self._ids]).encode())
        answers.update("".join([f"{label}\n" for label in self._labels]).encode())
        texts.update(b"".join([text + b"\xff" for text in self._texts]))  # which is in no text
        self._ids, self._labels, self._texts = [], [], []

    def _number(self, ids: tuple[int | str, ...], images: tuple[Path, ...]) -> int:
        """The number of these images together."""
        rows = [self._row(image_id, self._below_root(image)) for image_id, image in zip(ids, images, strict=True)]
        number = self._set_of.setdefault(ids[0] if len(ids) == 1 else ids, len(self._set_of))
        if number == len(self._sets_offsets) - 1:
            self._sets.extend(rows)
            self._sets_offsets.append(len(self._sets))
        return number

    def _row(self, image_id: int | str, file: str) -> int:
        row = self._row_of.setdefault(image_id, len(self._row_of))
        if row == len(self._files):
            self._image_ids.append(_to_json(image_id))
            self._files.append(file)
            self._digests[DIGESTED.index("images of the samples")].update(_to_json([image_id, os.path.basename(file)]).encode())
        elif self._files[row] != file:
            raise BadSampleError(
                f"image {image_id!r} is {self._files[row]} and also {file}; texts of the one would be put to the other: give "
                "every image an id of its own"
            )
        return row

    def _word_numbers(self, words: Iterable[str]) -> list[int]:
        known = self._words
        return [known.setdefault(word, len(known)) for word in words]

    def _label(self, answers: list[int], answer: int, groups: list[int]) -> None:
        """Of the sample that comes next; those before the first label of all have none."""
        before = len(self._numbers) - len(self._answer)
        if before:
            self._answer.extend([-1] * before)
            self._answers_offsets.extend([0] * before)
            self._groups_offsets.extend([0] * before)
        self._answers.extend(answers)
        self._answers_offsets.append(len(self._answers))
        self._answer.append(answer)
        self._groups.extend(groups)
        self._groups_offsets.append(len(self._groups))

    def _label_arrays(self) -> Arrays:
        return {
            "answers": np.frombuffer(self._answers, np.int32),
            "answers_offsets": as_offsets(self._answers_offsets),
            "answer": np.frombuffer(self._answer, np.int32),
            "groups": np.frombuffer(self._groups, np.int32),
            "groups_offsets": as_offsets(self._groups_offsets),
        }

    def _below_root(self, image: Path) -> str:
        """The image's path from the root, or a path of its own."""
        path, root = str(image), str(self._root)
        if path.startswith(f"{root}/"):
            return path[len(root) + 1 :]
        return path if root == "." else os.path.abspath(path)

    def _repeated(self, samples: Samples) -> np.ndarray:
        """A row whose id is another row's too; else nothing."""
        hashes_M = np.frombuffer(self._hashes, np.int64)
        sorted_M = np.sort(hashes_M)
        twice = np.unique(sorted_M[1:][sorted_M[1:] == sorted_M[:-1]])
        rows = np.flatnonzero(np.isin(hashes_M, twice)).tolist() if len(twice) else []
        ids = [samples[row].sample_id for row in rows]
        counts = Counter(ids)
        return np.array([row for row, sample_id in zip(rows, ids, strict=True) if counts[sample_id] > 1][:1], np.int64)


def _sample(sample_id: int | str, text: str, images: Images, label: Label, words: Block | list[str]) -> Sample:
    answers, answer, groups = label
    return Sample(
        sample_id=sample_id,
        image_ids=images[0],
        images=images[1],
        text=text,
        answers=tuple([words[code] for code in answers]),
        answer=None if answer < 0 else words[answer],
        groups={words[name]: words[kind] for name, kind in zip(groups[::2], groups[1::2], strict=True)},
    )


def _parts(values: np.ndarray, ends: list[int]) -> list[list[int]]:
    """What lies between the `ends`, each as a list."""
    base, found = ends[0], values[ends[0] : ends[-1]].tolist()
    return [found[start - base : end - base] for start, end in pairwise(ends)]


def _value(content: bytes) -> Any:
    """What JSON holds; most often a number, for which there is a shorter way."""
    return int(content) if content.isdigit() else json.loads(content.decode())


def collect(samples: Iterable[Sample], what: str = "the samples", root: Path = Path(), left_out: Iterable[Path] = ()) -> Arrays:
    """The arrays of any samples; `left_out`, images without a text, may grow while they are made. Raises UserError with `what`
    and the row for a sample that cannot be made or used."""
    writer = SamplesWriter(what, root)
    rows = _each(samples)
    while True:
        try:
            sample = next(rows)
        except StopIteration:
            break
        except RunError:
            raise
        except Exception as error:  # of a builder that makes its samples as they are asked for
            raise UserError(writer.line(f"failed with {type(error).__name__}: {error}; --debug shows where")) from error
        writer.add(sample)
    for image in left_out:
        writer.leave_out(image)
    return writer.arrays()


def _each(samples: Iterable[Sample]) -> Iterator[Sample]:
    """One after the other; of a sequence that makes them by index, so that its own IndexError does not look like the end."""
    if isinstance(samples, Sequence) and type(samples) not in (list, tuple):
        return (samples[row] for row in range(len(samples)))
    return iter(samples)
