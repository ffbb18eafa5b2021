"""Fingerprints of data sets, kept in a checkpoint: what changed between a stop and a resume is noticed and named.

Texts, ids, answers and the images' names are digested whole. Image files are not, which would take as long as an epoch: the
sizes of at most 10,000 are, evenly over the data set, and the contents of at most 64 of them, so that a change of many files
is noticed, and one of a single file of the same size mostly is not. Their times would change with every copy.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pixelbert_plugin.data.images import BadImageError, opened
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.pairs import Pairs
from pixelbert_plugin.types import Sample

MAX_FILES = 10_000  # image files of a data set's split whose sizes are looked at
MAX_READ = 64  # of those, how many are read
MAX_BYTES = 4_000_000  # of each: photographs are read whole
Fingerprint = dict[str, int | str]  # "samples" and, by what it is of, a digest


def fingerprints(data: dict[str, Mixture]) -> dict[str, Fingerprint]:
    """By "split/dataset"."""
    return {f"{split}/{name}": _of(part) for split, mixture in data.items() for name, part in mixture.parts.items()}


def changes(former: Fingerprint, now: Fingerprint) -> list[str]:
    """What is not as it was; where samples came or went, how many there are and whether image files changed besides."""
    found = []
    if former.get("samples") != now["samples"]:
        found.append(f"{now['samples']} samples, {former.get('samples')} before")
    kinds = () if found else ("ids", "texts", "answers", "images of the samples")
    found += [kind for kind in kinds if kind in former and former[kind] != now[kind]]
    files = ("image files", "image contents")  # earlier versions read no contents
    return found + ["image files"] * any(kind in former and former[kind] != now[kind] for kind in files)


def _of(samples: Sequence[Sample]) -> Fingerprint:
    columns = _columns_of_pairs(samples) if isinstance(samples, Pairs) else _columns(samples)
    files = columns.pop("image files")
    found: Fingerprint = {"samples": len(samples)}
    found |= {kind: _digest(values) for kind, values in columns.items()}
    return found | {"image files": _digest([_sizes(files)]), "image contents": _digest(map(_content, _spread(files, MAX_READ)))}


def _columns_of_pairs(samples: Pairs) -> dict[str, list]:
    return {**samples.columns(), "image files": [samples.root / file for file in _spread(samples.image_files, MAX_FILES)]}


def _columns(samples: Sequence[Sample]) -> dict[str, list]:
    """Of any other samples, walked through once."""
    files: dict[Path, None] = {}
    ids, texts, answers, images = [], [], [], []
    for sample in samples:
        ids.append(repr(sample.sample_id))
        texts.append(sample.text)
        answers.append(repr((sample.answers, sample.answer)))
        images.append(repr((sample.image_ids, [Path(path).name for path in sample.images])))
        files.update(dict.fromkeys(map(Path, sample.images)))
    columns = {"ids": ids, "texts": texts, "answers": answers, "images of the samples": images}
    return {**columns, "image files": _spread(list(files), MAX_FILES)}


def _spread(values: Sequence, most: int) -> list:
    count = min(most, len(values))
    return [values[index * len(values) // count] for index in range(count)]


def _sizes(files: Iterable[Path]) -> np.ndarray:
    def size(file: Path) -> int:
        try:
            return file.stat().st_size
        except (OSError, ValueError):  # no file; no name of one
            return -1

    return np.array([size(file) for file in files], dtype=np.int64)


def _content(file: Path) -> str:
    """A digest of its beginning; "" where it cannot be read."""
    try:
        with opened(file) as image:
            return hashlib.blake2b(image.read(MAX_BYTES), digest_size=16).hexdigest()
    except (OSError, BadImageError):
        return ""


def _digest(values: Iterable[np.ndarray | str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(values):
        digest.update(part)
    return digest.hexdigest()


def _parts(values: Iterable[np.ndarray | str]) -> Iterator[bytes | memoryview]:
    for value in values:
        if isinstance(value, str):
            encoded = value.encode(errors="replace")
            yield len(encoded).to_bytes(8, "little")
            yield encoded
        else:
            array = np.ascontiguousarray(value)
            yield str(array.shape).encode()
            yield memoryview(array).cast("B") if array.size else b""
