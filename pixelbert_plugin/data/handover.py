"""From a worker to the training process: a batch as one buffer, and what goes wrong on the way as a message.

torch's DataLoader shares every tensor by itself: a file descriptor an image, all in /dev/shm, of which Docker gives 64 MB; and
what fails there fails in a thread whose error nobody sees, so that the run waits for ever. Here the worker itself pickles the
batch, tensors beside it, into one piece of memory that belongs to no file system and that the main process maps. Where that
cannot be had (no Linux, no descriptor left), the same bytes go through the queue's pipe.
"""

import errno
import io
import os
import pickle
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes, of each tensor in the buffer
HAS_MEMORY_FILES = sys.platform == "linux" and hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")
Place = tuple[int, int, torch.dtype, tuple[int, ...], tuple[int, ...]]  # of a tensor: start, bytes, type, shape, order of axes


@dataclass(frozen=True)
class Parcel:
    """A batch on its way."""

    pickled: bytes  # all but the tensors' bytes
    size: int  # bytes of the tensors, each aligned
    memory: str | bytes  # the path of the memory file, or the bytes
    inode: int = 0  # of the memory file: a descriptor that was closed too early may be another batch's by now

    def open(self) -> Any:
        """The batch, its tensors views of one buffer. Raises FileNotFoundError where the worker and with it the memory is gone,
        another OSError where no descriptor is left to map it."""
        if not self.size:
            buffer = torch.empty(0, dtype=torch.uint8)
        elif isinstance(self.memory, bytes):
            buffer = torch.frombuffer(bytearray(self.memory), dtype=torch.uint8)
        else:
            buffer = self._mapped()
        return _Unpickler(io.BytesIO(self.pickled), buffer).load()

    def _mapped(self) -> Tensor:
        descriptor = os.open(self.memory, os.O_RDONLY)
        try:
            if os.fstat(descriptor).st_ino != self.inode:
                raise FileNotFoundError(errno.ENOENT, "the batch is gone", self.memory)
            return torch.from_file(f"/proc/self/fd/{descriptor}", shared=False, size=self.size, dtype=torch.uint8)
        finally:
            os.close(descriptor)

    def pin_memory(self) -> Any:
        """Called by torch's DataLoader in a thread of the main process."""
        batch = self.open()
        return batch.pin_memory() if hasattr(batch, "pin_memory") else batch


class Sender:
    """A worker's end. The memory of its last `kept` parcels is held, so that the main process has time to map them."""

    def __init__(self, kept: int):
        self._held: deque[int] = deque()
        self._kept = kept

    def send(self, batch: Any) -> Parcel:
        """Raises whatever pickling `batch` raises."""
        file, size = io.BytesIO(), 0
        tensors: list[Tensor] = []
        pickler = _Pickler(file, tensors)
        pickler.dump(batch)
        places = []
        for tensor in tensors:
            places.append(size)
            size += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
        try:
            if size and HAS_MEMORY_FILES:
                return Parcel(file.getvalue(), size, *self._in_memory_file(tensors, places, size))
        except OSError:  # no descriptor left, or no memory files here
            pass
        flat = bytearray(size)
        for tensor, place in zip(tensors, places, strict=True):
            flat[place : place + tensor.numel()] = tensor.numpy().data
        return Parcel(file.getvalue(), size, bytes(flat))

    def _in_memory_file(self, tensors: list[Tensor], places: list[int], size: int) -> tuple[str, int]:
        while len(self._held) >= self._kept:
            os.close(self._held.popleft())
        descriptor = os.memfd_create("pixelbert-batch")
        self._held.append(descriptor)
        os.posix_fallocate(descriptor, 0, size)  # an error here, rather than a bus error while it is written
        for tensor, place in zip(tensors, places, strict=True):
            left = tensor.numpy().data
            while left:
                written = os.pwrite(descriptor, left, place)
                left, place = left[written:], place + written
        return f"/proc/{os.getpid()}/fd/{descriptor}", os.fstat(descriptor).st_ino


class _Pickler(pickle.Pickler):
    """Puts tensors aside as flat bytes, and in their place number, type, shape and order of axes (an image's channels may be
    last in memory, first in shape)."""

    def __init__(self, file: io.BytesIO, tensors: list[Tensor]):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._tensors, self._place = tensors, 0

    def persistent_id(self, item: Any) -> Place | None:
        if type(item) is not Tensor or item.layout != torch.strided or item.device.type != "cpu" or item.is_quantized:
            return None
        strides = item.stride()
        axes = sorted(range(item.dim()), key=lambda axis: -strides[axis])
        dense = item.detach().permute(axes).contiguous()
        flat = dense.reshape(-1).view(torch.uint8)
        start, self._place = self._place, self._place + -(-flat.numel() // ALIGNMENT) * ALIGNMENT
        self._tensors.append(flat)
        return start, flat.numel(), item.dtype, tuple(dense.shape), tuple(axes)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, buffer: Tensor):
        super().__init__(file)
        self._buffer = buffer

    def persistent_load(self, place: Place) -> Tensor:
        start, size, dtype, shape, axes = place
        dense = self._buffer[start : start + size].view(dtype).view(shape)
        return dense.permute([axes.index(axis) for axis in range(len(axes))])
