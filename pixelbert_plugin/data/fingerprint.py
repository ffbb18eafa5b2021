"""Fingerprints of data sets, kept in a checkpoint: what changed between a stop and a resume is noticed and named.

Texts, ids, answers and the images' names are digested whole. Of the image files only the sizes are, of at most 10,000 evenly
over the split: to read them all would take as long as an epoch, and their times change with every copy.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.pairs import Pairs
from pixelbert_plugin.types import Sample

MAX_FILES = 10_000  # image files of a split whose sizes are looked at
Fingerprint = dict[str, int | str]  # "samples" and, by what it is of, a digest


def fingerprints(data: dict[str, Mixture]) -> dict[str, Fingerprint]:
    """By "split/dataset"."""
    return {f"{split}/{name}": _of(part) for split, mixture in data.items() for name, part in mixture.parts.items()}


def changes(former: Fingerprint, now: Fingerprint) -> list[str]:
    """What is not as it was; where samples came or went, how many there are and whether image files changed besides."""
    found = []
    if former.get("samples") != now["samples"]:
        found.append(f"{now['samples']} samples, {former.get('samples')} before")
    kinds = ("image files",) if found else ("ids", "texts", "answers", "images of the samples", "image files")
    return found + [kind for kind in kinds if kind in former and former[kind] != now[kind]]


def _of(samples: Sequence[Sample]) -> Fingerprint:
    columns = _columns_of_pairs(samples) if isinstance(samples, Pairs) else _columns(samples)
    files = columns.pop("image files")
    found: Fingerprint = {"samples": len(samples)}
    found |= {kind: _digest(values) for kind, values in columns.items()}
    return found | {"image files": _digest([_sizes(files)])}


def _columns_of_pairs(samples: Pairs) -> dict[str, list]:
    return {**samples.columns(), "image files": [samples.root / file for file in _spread(samples.image_files)]}


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
    return {**columns, "image files": _spread(list(files))}


def _spread(values: Sequence) -> list:
    count = min(MAX_FILES, len(values))
    return [values[index * len(values) // count] for index in range(count)]


def _sizes(files: Iterable[Path]) -> np.ndarray:
    def size(file: Path) -> int:
        try:
            return file.stat().st_size
        except OSError:
            return -1

    return np.array([size(file) for file in files], dtype=np.int64)


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
