"""A builder's samples are checked one by one, and a few words say what is wrong with one.

What can be meant in one way only is put right: ids of numpy, paths as texts, lists instead of tuples.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin.types import Sample

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


class BadSampleError(Exception):
    """What is wrong with a sample, in words."""


def is_plain(sample: Any) -> bool:
    """Whether a sample needs no look at its id, text and label: a number, ASCII and none, as most of many millions have."""
    return (
        type(sample) is Sample
        and type(sample.sample_id) is int
        and type(sample.text) is str
        and sample.text.isascii()
        and sample.answers == ()
        and sample.answer is None
        and sample.groups == {}
    )


def checked(sample: Any) -> Sample:
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


def _tuple(values: Any, name: str, check: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    if not isinstance(values, tuple | list):
        hint = "; a tuple of one value is written (value,)" if isinstance(values, str | Path | int) else ""
        raise BadSampleError(f"{name} is {_repr.repr(values)}, not a tuple{hint}")
    found = tuple([check(value, f"{name}[{place}]") for place, value in enumerate(values)])
    if isinstance(values, tuple) and all(new is old for new, old in zip(found, values, strict=True)):
        return values
    return found


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
