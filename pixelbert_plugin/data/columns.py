"""Columns: many small values as a few numpy arrays, which forked workers share and a cache maps from disk. M rows.

A column of numbers is an int64 array; a column of texts is a `TextColumn`. Both have `item(row)`, an int or a str.
"""

from array import array
from collections.abc import Sequence

import numpy as np

from pixelbert_plugin.errors import UserError

Arrays = dict[str, np.ndarray]


class TextColumn(Sequence):
    """M strings as one block of UTF-8 (T bytes, uint8) and M + 1 offsets (int64)."""

    def __init__(self, bytes_T: np.ndarray, offsets_M1: np.ndarray):
        self.bytes_T, self.offsets_M1 = bytes_T, offsets_M1

    def __len__(self) -> int:
        return len(self.offsets_M1) - 1

    def __getitem__(self, index: int) -> str:
        return self.item(range(len(self))[index])

    def item(self, row: int) -> str:
        start, stop = self.offsets_M1.item(row), self.offsets_M1.item(row + 1)
        return self.bytes_T[start:stop].tobytes().decode()


class TextWriter:
    """Collects strings for a `TextColumn`."""

    def __init__(self):
        self._bytes, self._offsets = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def item(self, row: int) -> str:
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].decode()

    def append(self, text: str) -> None:
        self._bytes += text.encode(errors="replace")  # half a surrogate pair ("\ud83d" in JSON) is no text
        self._offsets.append(len(self._bytes))

    def arrays(self, name: str) -> Arrays:
        """The column as arrays for `column`, without a copy."""
        return {f"{name}_bytes": np.frombuffer(self._bytes, np.uint8), f"{name}_offsets": as_array(self._offsets)}


class IdWriter:
    """Collects ids, all numbers or all texts; `source` is what an error names."""

    def __init__(self, source: object):
        self._source = source
        self._ids: array | TextWriter = array("q")
        self._type: type | None = None

    def append(self, value: int | str) -> None:
        if type(value) is not self._type:
            if self._type is not None:
                raise UserError(f"{self._source}: id {value!r} after ids of another type; make them all numbers or all texts")
            self._type = type(value)
            self._ids = TextWriter() if self._type is str else array("q")
        try:
            self._ids.append(value)
        except OverflowError as error:
            raise UserError(f"{self._source}: id {value} does not fit into 64 bits") from error

    def arrays(self, name: str) -> Arrays:
        if isinstance(self._ids, TextWriter):
            return self._ids.arrays(name)
        return {name: as_array(self._ids)}


class CodeBook:
    """Strings that recur, each kept once: code(string) → its number."""

    def __init__(self):
        self._codes: dict[str, int] = {}
        self._texts = TextWriter()

    def code(self, text: str) -> int:
        if text not in self._codes:
            self._codes[text] = len(self._codes)
            self._texts.append(text)
        return self._codes[text]

    def arrays(self, name: str) -> Arrays:
        return self._texts.arrays(name)


def as_array(values: array) -> np.ndarray:
    """The numbers of a standard `array`, without a copy."""
    return np.frombuffer(values, dtype=values.typecode)


def column(arrays: Arrays, name: str) -> np.ndarray | TextColumn:
    """The column `name` of numbers or of texts."""
    return arrays[name] if name in arrays else TextColumn(arrays[f"{name}_bytes"], arrays[f"{name}_offsets"])
