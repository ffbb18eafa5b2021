"""Fingerprints of data sets, kept in a checkpoint: what changed between a stop and a resume is noticed and named.

Texts, ids, answers and the images' names are digested whole. Image files are not, which would take as long as an epoch: the
sizes of at most 10,000 are, evenly over the data set, and the contents of at most 64 of them, so that a change of many files
is noticed, and one of a single file of the same size mostly is not. Their times would change with every copy.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixelbert_plugin.data.images import BadImageError, opened
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples

MAX_FILES = 10_000  # image files of a data set's split whose sizes are looked at
MAX_READ = 64  # of those, how many are read
MAX_BYTES = 4_000_000  # of each: photographs are read whole
FORMAT = 2  # of the digests of what samples hold: those of another one are not compared
Fingerprint = dict[str, int | str]  # "format", "samples" and, by what it is of, a digest


def fingerprints(data: dict[str, Mixture]) -> dict[str, Fingerprint]:
    """By "split/dataset"."""
    return {f"{split}/{name}": _of(part) for split, mixture in data.items() for name, part in mixture.parts.items()}


def changes(former: Fingerprint, now: Fingerprint) -> list[str]:
    """What is not as it was; where samples came or went, how many there are and whether image files changed besides."""
    found = []
    if former.get("samples") != now["samples"]:
        found.append(f"{now['samples']} samples, {former.get('samples')} before")
    is_comparable = not found and former.get("format") == now["format"]
    kinds = () if not is_comparable else ("ids", "texts", "answers", "images of the samples")
    found += [kind for kind in kinds if kind in former and former[kind] != now[kind]]
    files = ("image files", "image contents")  # earlier versions read no contents
    return found + ["image files"] * any(kind in former and former[kind] != now[kind] for kind in files)


def _of(samples: Samples) -> Fingerprint:
    files = [samples.image_path(row) for row in _spread(samples.num_images, MAX_FILES)]
    contents = [_content(files[place]) for place in _spread(len(files), MAX_READ)]
    return {
        "format": FORMAT,
        "samples": len(samples),
        **samples.digests(),
        "image files": _digest(f"({len(files)},)".encode() + _sizes(files).tobytes()),
        "image contents": _digest(b"".join(len(content).to_bytes(8, "little") + content.encode() for content in contents)),
    }


def _spread(count: int, most: int) -> list[int]:
    """At most so many numbers below `count`, evenly."""
    chosen = min(most, count)
    return [index * count // chosen for index in range(chosen)]


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


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
