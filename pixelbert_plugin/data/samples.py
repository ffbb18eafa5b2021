"""The samples of a split as a few arrays: one block of bytes and offsets, and a table of their images. M samples.

Whatever iterable of Sample a builder gives becomes this. Millions of samples take the memory of their texts and no Python
object each: forked workers share the arrays, a cache maps them from disk, and a Sample is made when it is asked for.

    records       of each sample its head, then its text. The head is JSON: the id; with a label [id, answers, answer, groups]
    words         what answers and groups are made of, each once: a head has their numbers
    images_M      which images a sample has: a number, by first use, equal for samples with the same images
    image sets    the images of each such number, as rows of the table of images, which are in the order of their first use
    images        their ids, also JSON, and their files, below the data set's root
"""

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin.data.blocks import Arrays, Block, BlockWriter, Rows, as_offsets
from pixelbert_plugin.data.checked import BadSampleError, checked, is_plain
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.types import Sample

CHUNK = 4096  # samples that are written, or whose labels are read, at once
DIGESTED = ("ids", "texts", "answers", "images of the samples")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
Label = tuple[tuple[str, ...], str | None]  # a sample's answers and its main one


class Samples(Rows[Sample]):
    """M samples of `arrays`, as a `SamplesWriter` made them; image files are below `root`, or have paths of their own."""

    def __init__(self, arrays: Arrays, root: Path = Path()):
        self.root = root
        self.images_M = arrays["images_of_samples"]  # int32
        self.left_out = Block.of(arrays, "left_out")  # files of images that have no text
        self._records, self._heads_M = Block.of(arrays, "records"), arrays["heads"]  # in bytes
        self._words = Block.of(arrays, "words")
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
        length, number = self._heads_M.item(row), self.images_M.item(row)
        images = self._sets[self._sets_offsets.item(number) : self._sets_offsets.item(number + 1)].tolist()
        record, ids, files = self._records.content(row), self._image_ids.contents(images), self._files.texts(images)
        head, *image_ids = map(_value, (record[:length], *ids))
        paths = tuple([self.root / file for file in files])
        sample_id, answers, answer, groups = head if isinstance(head, list) else (head, (), None, ())
        given, named = self._words.texts(answers), self._words.texts(groups)
        return Sample(
            sample_id=sample_id,
            image_ids=tuple(image_ids),
            images=paths,
            text=record[length:].decode(),
            answers=tuple(given),
            answer=None if answer is None else self._words[answer],
            groups=dict(zip(named[::2], named[1::2], strict=True)),
        )

    def text(self, row: int) -> str:
        return self._records.content(row)[self._heads_M.item(row) :].decode()

    def texts(self) -> Iterator[str]:
        """The text of every sample."""
        return (content[head:].decode() for content, head in self._contents())

    @property
    def text_bytes_M(self) -> np.ndarray:
        """M int64: how many bytes of UTF-8 each text has."""
        return np.diff(self._records.offsets_M1.astype(np.int64)) - self._heads_M

    def labels(self) -> Iterator[Label]:
        """`answers` and `answer` of every sample."""
        if not len(self._words):
            yield from repeat(((), None), len(self))
            return
        words = [*self._words]
        heads = (content[:head] for content, head in self._contents())
        for _ in range(0, len(self), CHUNK):
            for head in json.loads(b"[" + b",".join(islice(heads, CHUNK)) + b"]"):
                if isinstance(head, list):
                    yield tuple([words[code] for code in head[1]]), None if head[2] is None else words[head[2]]
                else:
                    yield (), None

    @property
    def num_images(self) -> int:
        return len(self._files)

    def image_path(self, row: int) -> Path:
        """The file of an image; images are numbered in the order of their first use."""
        return self.root / self._files[row]

    def image_paths(self) -> list[Path]:
        """Every image of the samples, once."""
        return [self.image_path(row) for row in range(self.num_images)]

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

    def _contents(self) -> Iterator[tuple[bytes, int]]:
        """Each sample's head and text, and how long the head is."""
        for first in range(0, len(self), CHUNK):
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
            label = f",[{answers}],{'null' if sample.answer is None else self._word_numbers([sample.answer])},[{groups}]"
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
            **self._left_out.block().arrays("left_out"),
            "digests": np.array([list(digest.digest()) for digest in self._digests], np.uint8),
            "repeated": np.zeros(0, np.int64),
        }
        return {**arrays, "repeated": self._repeated(Samples(arrays))}

    def _write(self) -> None:
        heads = [
            f"[{one}{label}]".encode() if label else one.encode() for one, label in zip(self._ids, self._labels, strict=True)
        ]
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

    def _word_numbers(self, words: Iterable[str]) -> str:
        known = self._words
        return ",".join([str(known.setdefault(word, len(known))) for word in words])

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


def _value(content: bytes) -> Any:
    """What JSON holds; most often a number, for which there is a shorter way."""
    return int(content) if content.isdigit() else json.loads(content.decode())


def collect(samples: Iterable[Sample], what: str, root: Path = Path(), left_out: Iterable[Path] = ()) -> Arrays:
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
