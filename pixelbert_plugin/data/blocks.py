"""Blocks: many texts as one array of bytes and one of offsets, which forked workers share and a cache maps. M texts."""

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sized
from itertools import pairwise
from typing import TypeVar

import numpy as np

Arrays = dict[str, np.ndarray]
T_co = TypeVar("T_co", covariant=True)


class Rows(Sized, Iterable[T_co]):
    """What is made when its row is asked for. It is no Sequence, which would have slices too."""

    @abstractmethod
    def __getitem__(self, index: int) -> T_co:
        """Raises IndexError beyond the last row; negative ones count from the end."""

    def __iter__(self) -> Iterator[T_co]:
        return (self[index] for index in range(len(self)))


class Block(Rows[str]):
    """M texts: UTF-8 (T bytes, uint8) and M + 1 offsets (uint32, from 4 GiB on int64)."""

    def __init__(self, bytes_T: np.ndarray, offsets_M1: np.ndarray):
        self.bytes_T, self.offsets_M1 = bytes_T, offsets_M1

    @classmethod
    def of(cls, arrays: Arrays, name: str) -> "Block":
        """The block that was written as `name`."""
        return cls(arrays[f"{name}_bytes"], arrays[f"{name}_offsets"])

    def __len__(self) -> int:
        return len(self.offsets_M1) - 1

    def __getitem__(self, index: int) -> str:
        return self.content(range(len(self))[index]).decode()

    def __iter__(self) -> Iterator[str]:
        """All of them, copied at once: several times as fast as one by one."""
        content, offsets = self.bytes_T.tobytes(), self.offsets_M1.tolist()
        return (content[start:end].decode() for start, end in pairwise(offsets))

    def content(self, row: int) -> bytes:
        """The bytes of one text."""
        return self.bytes_T[self.offsets_M1.item(row) : self.offsets_M1.item(row + 1)].tobytes()

    def contents(self, rows: Iterable[int]) -> list[bytes]:
        """The bytes of several texts."""
        return [self.content(row) for row in rows]

    def texts(self, rows: Iterable[int]) -> list[str]:
        """Several texts."""
        return [self.content(row).decode() for row in rows]

    def arrays(self, name: str) -> Arrays:
        return {f"{name}_bytes": self.bytes_T, f"{name}_offsets": self.offsets_M1}


class BlockWriter:
    """Collects texts for a `Block`."""

    def __init__(self) -> None:
        self._bytes, self._offsets = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].decode()

    def append(self, text: str) -> None:
        self.extend([text.encode()])

    def extend(self, contents: list[bytes]) -> None:
        """Texts that are encoded already."""
        end = len(self._bytes)
        self._offsets.extend([end := end + len(content) for content in contents])
        self._bytes += b"".join(contents)

    def block(self) -> Block:
        return Block(np.frombuffer(self._bytes, np.uint8), as_offsets(self._offsets))


def as_offsets(values: "array[int]") -> np.ndarray:
    """Growing numbers as uint32, or int64 where those do not hold them."""
    found = np.frombuffer(values, values.typecode)
    return found.astype(np.uint32) if found[-1] < 2**32 else found
