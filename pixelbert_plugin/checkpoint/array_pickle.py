"""Pickles of NumPy arrays by name, as Caffe2's and detectron2's model zoos publish weights: read, and never executed.

Such a file names functions to be called. Only what builds arrays and plain containers is known here, and arrays are built from
their bytes by this module itself: nothing of NumPy's own unpickling runs on untrusted values.
"""

import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")  # NumPy's names of types


class HostilePickleError(ValueError):
    """It names something that is neither an array nor a plain container."""


def read(path: Path) -> Any:
    """What a pickle of Python 2 or 3 holds: containers, texts, numbers and numpy.ndarray.

    Raises ValueError where it is no such file, HostilePickleError where it would call anything else.
    """
    try:
        with path.open("rb") as file:
            return _plain(_Reader(file, encoding="latin1").load())
    except HostilePickleError:
        raise
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except Exception as error:  # damaged bytes fail anywhere in the reader
        raise ValueError(f"is no whole pickle of arrays ({type(error).__name__}: {error})"[:300]) from error


class _Reader(
    pickle._Unpickler
):  # the one written in Python: that in C takes 16 bytes of memory for each number up to one named
    """Its classes are made anew for each file, so that no file leaves anything behind in them."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)

        class Kind(_Kind):
            pass

        class Array(_Array):
            pass

        def new_array(*_arguments: Any) -> Array:
            return Array()

        def scalar(kind: _Kind, content: Any) -> Any:
            return kind.array(content, ())[()]

        def from_buffer(content: Any, kind: _Kind, shape: Any, order: str) -> Array:  # since pickle's protocol 5
            found = Array()
            found.value = kind.array(content, tuple(shape), order)
            return found

        def encode(text: str, encoding: str = "latin1") -> bytes:
            return text.encode(encoding if encoding in ("latin1", "latin-1") else "ascii")

        multiarray = {"_reconstruct": new_array, "scalar": scalar}
        self._known = {
            **{(f"numpy.{core}.multiarray", name): value for core in ("core", "_core") for name, value in multiarray.items()},
            **{(f"numpy.{core}.numeric", "_frombuffer"): from_buffer for core in ("core", "_core")},
            ("numpy", "ndarray"): Array,
            ("numpy", "dtype"): Kind,
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): encode,  # bytes in the protocols before 3, and none of them
            **{(builtins, "bytes"): lambda: b"" for builtins in ("__builtin__", "builtins")},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise HostilePickleError(f"names {module}.{name}, which no file of weights needs; it is not loaded"[:300])
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise HostilePickleError("refers to objects outside the file; it is not loaded")


class _Kind:
    """A numpy.dtype: one of KINDS, in either order of bytes."""

    def __init__(self, name: Any = "", *_arguments: Any):
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def array(self, content: Any, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
        if self.name not in KINDS:
            raise ValueError(f"an array's type {self.name!r} is none of numbers")
        if not isinstance(content, str | bytes | bytearray | pickle.PickleBuffer):  # of a number, bytes() makes so many zeros
            raise ValueError(f"an array's content is {type(content).__name__}")
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        kind = np.dtype(f"{self.order}{self.name}")
        if any(type(size) is not int or size < 0 for size in shape) or len(raw) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"an array of shape {shape} does not have {len(raw)} bytes")
        found = np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C")
        return found.astype(kind.newbyteorder("="))


class _Array:
    """A numpy.ndarray while it is read; `_plain` puts the real one in its place."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        self.value = kind.array(content, tuple(shape), "F" if is_fortran else "C")


def _plain(found: Any) -> Any:
    """Arrays and containers as themselves. Raises ValueError for anything else."""
    if isinstance(found, _Array):
        if found.value is None:
            raise ValueError("an array has no content")
        return found.value
    if isinstance(found, dict):
        return {_plain(key): _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    if found is None or isinstance(found, str | bytes | bool | int | float | np.generic):
        return found
    raise ValueError(f"holds a {type(found).__name__}")
