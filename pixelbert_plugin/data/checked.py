"""Samples of a builder that makes them itself: each is checked as it is asked for, and one line says what is wrong with it."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.types import Sample

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


class CheckedSamples(Sequence):
    """A builder's samples of a split. Raises UserError with data set, split and row for one that cannot be made or used.

    What can be meant in one way only is put right: ids of numpy, paths as texts, lists instead of tuples.
    """

    def __init__(self, samples: Sequence[Sample], dataset: str, split: str, builder: str):
        self._samples, self._dataset, self._split, self._builder = samples, dataset, split, builder

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        try:
            return checked(self._samples[row])
        except RunError:
            raise
        except BadSampleError as error:
            reason = str(error)
        except Exception as error:  # of a plugin that makes its samples as they are asked for
            reason = f"failed with {type(error).__name__}: {error}; --debug shows where"
            raise UserError(self._line(row, reason)) from error
        raise UserError(self._line(row, reason))

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))  # an IndexError of the builder must not look like the end

    def __getattr__(self, name: str) -> Any:
        """The arrays of a builder that offers them (data/mixture.py)."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._samples, name)

    def _line(self, row: int, reason: str) -> str:
        reason = " ".join(reason.encode(errors="backslashreplace").decode().split())
        return f"datasets: row {row} of the {self._split} split of {self._dataset} (builder {self._builder}): {reason}"


class BadSampleError(Exception):
    """What is wrong with a sample, in words."""


def checked(sample: Sample) -> Sample:
    """The sample with every field of its type. Raises BadSampleError."""
    if not isinstance(sample, Sample):
        raise BadSampleError(f"is {_repr.repr(sample)}, not a Sample")
    changes: dict[str, Any] = {}

    def change(name: str, value: Any) -> None:
        if value is not getattr(sample, name):
            changes[name] = value

    change("sample_id", _id(sample.sample_id, "sample_id"))
    _text(sample.text, "text")
    change("image_ids", _tuple(sample.image_ids, "image_ids", _id))
    change("images", _tuple(sample.images, "images", _path))
    if not sample.images or len(sample.images) != len(sample.image_ids):
        raise BadSampleError(
            f"has {len(sample.images)} images and {len(sample.image_ids)} image_ids; give one id to each image"
        )
    change("answers", _tuple(sample.answers, "answers", _text))
    if sample.answer is not None:
        _text(sample.answer, "answer")
    if not isinstance(sample.groups, Mapping):
        raise BadSampleError(f"groups is {_repr.repr(sample.groups)}, not a dict of str to str")
    for name, kind in sample.groups.items():
        _text(name, "a group's name")
        _text(kind, f"groups[{name!r}]")
    return replace(sample, **changes) if changes else sample


def _tuple(values: Any, name: str, check: Any) -> tuple:
    if not isinstance(values, tuple | list):
        hint = "; a tuple of one value is written (value,)" if isinstance(values, str | Path | int) else ""
        raise BadSampleError(f"{name} is {_repr.repr(values)}, not a tuple{hint}")
    found = tuple([check(value, f"{name}[{place}]") for place, value in enumerate(values)])
    is_same = isinstance(values, tuple) and all(new is old for new, old in zip(found, values, strict=True))
    return values if is_same else found


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadSampleError(f"{name} is {_repr.repr(value)}, of type {type(value).__name__}, not str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadSampleError(f"{name} is {_repr.repr(value)}, which holds half a surrogate pair and is no text") from error
    return value


def _id(value: Any, name: str) -> int | str:
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, np.integer):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadSampleError(f"{name} is {_repr.repr(value)}, of type {type(value).__name__}, not int or str")
    return value


def _path(value: Any, name: str) -> Path:
    if not isinstance(value, Path | str):
        raise BadSampleError(f"{name} is {_repr.repr(value)}, of type {type(value).__name__}, not a path")
    if "\0" in _text(str(value), name) or not str(value):
        raise BadSampleError(f"{name} is {_repr.repr(value)}, which is no path")
    return Path(value) if isinstance(value, str) else value
