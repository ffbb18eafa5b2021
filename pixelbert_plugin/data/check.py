"""Check of a data folder: every file there, the counts against the published ones, every image there, one or all decoded."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.decode_all import DecodedImages
from pixelbert_plugin.data.files import missing_files
from pixelbert_plugin.data.images import BadImageError, upright_size
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.survey import seen_in_training, survey
from pixelbert_plugin.errors import RunError
from pixelbert_plugin.processors.image import ImageProcessor

NUM_NAMED = 3  # missing images that are named
Status = Literal["ok", "warning", "missing", "differs", "broken"]  # a warning is no failure


@dataclass(frozen=True)
class CheckRow:
    """One line of the check's table."""

    dataset: str
    split: str  # as a run names it, and the data set's own name where that is another
    what: str  # what was looked at
    status: Status
    detail: str  # what was found, in words


Finding = tuple[str, Status, str]  # the last three of a row


def check(
    builders: dict[str, Builder],
    splits: list[str],
    image_processor: ImageProcessor,
    text: Any | None = None,
    answers: Any | None = None,
    decoded: DecodedImages | Literal["none", "sample"] = "sample",
) -> list[CheckRow]:
    """The rows of every split of every data set. What is wrong becomes a row: nothing is raised.

    Of each split no image is decoded, or one, or all by `decoded`, which then has the bad ones.

    `text` and `answers` are the processors with their vocabularies; what needs one that is None is not looked at.
    """
    rows = []
    trained: set[str] = set()  # the training's images, so far
    for name, builder in builders.items():
        for split in splits:
            findings, title = [], split
            try:
                if builder.has_split(split):
                    own = builder.source_split(split)
                    title = split if own == split else f"{split} ({own})"
                    arguments = (name, builder, split, own, image_processor, text, answers, decoded, trained)
                    for finding in _check_split(*arguments):
                        findings.append(finding)
                else:
                    findings.append(("split", "ok", "the data set has none"))
            except RunError as error:
                findings.append(("samples", "broken", str(error)))
            except Exception as error:  # of a plugin's builder
                findings.append(("samples", "broken", f"{type(error).__name__}: {error}"))
            rows += [CheckRow(name, title, *finding) for finding in findings]
    return rows


def _check_split(
    name: str,
    builder: Builder,
    split: str,
    own: str,
    processor: ImageProcessor,
    text: Any | None,
    answers: Any | None,
    decoded: DecodedImages | Literal["none", "sample"],
    trained: set[str],
) -> Iterator[Finding]:
    files = builder.files(split)
    for key, path in files:
        is_there = path.is_file()
        found = f"{path.stat().st_size:,} bytes" if is_there else f"{key}: no such file; {builder.remedy}"
        yield str(path), "ok" if is_there else "missing", found
    if not all(path.is_file() for _, path in files):
        yield "samples", "missing", "not counted: files are missing"
        return
    samples = Mixture.build({name: builder}, split).parts[name]
    yield from _check_counts(builder, split, own, samples)
    yield from _check_images(f"{name} {split}", samples, processor, decoded)
    remarks = survey(samples, text, answers, builder.config.only_known_answers)
    if split == "train":
        trained |= samples.image_names()
    for remark in itertools.chain(remarks, seen_in_training(samples, trained) if split in ("val", "test") else ()):
        yield remark.what, "warning" if remark.is_warning else "ok", remark.detail


def _check_counts(builder: Builder, split: str, own: str, samples: Samples) -> Iterator[Finding]:
    found, published = builder.count(split, samples), builder.config.counts.get(own, {})
    for what, number in found.items():
        expected = published.get(what)
        if expected is None:
            yield what.replace("_", " "), "ok", f"{number:,} (no published number)"
        else:
            is_equal = number == expected
            detail = f"{number:,}, as published" if is_equal else f"{number:,}, published: {expected:,}"
            yield what.replace("_", " "), "ok" if is_equal else "differs", detail
    for what in published.keys() - found.keys():
        key = f"{builder.key}.counts.{own}.{what}"
        yield what, "broken", f"{key}: no such count (known: {', '.join(found)})"


def _check_images(
    title: str, samples: Samples, processor: ImageProcessor, decoded: DecodedImages | Literal["none", "sample"]
) -> Iterator[Finding]:
    paths = samples.image_paths()
    missing = missing_files(paths)
    if missing:
        yield "image files", "missing", f"{len(missing):,} of {len(paths):,} are not there: {_first(missing)}"
    else:
        yield "image files", "ok", f"{len(paths):,}"
    absent = set(missing)
    there = [path for path in paths if path not in absent]
    if decoded == "none":
        return
    if not there:
        yield "one image", "missing", "none to decode"
    elif decoded == "sample":
        yield "one image", *_decoded_one(there[0], processor)
    elif bad := decoded.decode(there, title):
        yield "every image", "broken", f"{len(bad):,} of {len(there):,} cannot be read: {_first(bad)}"
    else:
        yield "every image", "ok", f"{len(there):,} decoded"


def _decoded_one(path: Path, processor: ImageProcessor) -> tuple[Status, str]:
    try:
        processor.decode(path)
        height, width = upright_size(path)
    except BadImageError as error:
        return "broken", str(error)
    return "ok", f"{path}: {width} × {height} pixels"


def _first(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:NUM_NAMED])) + (", …" if len(paths) > NUM_NAMED else "")
