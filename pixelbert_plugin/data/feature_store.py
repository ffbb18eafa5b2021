"""Features of images on the disk: `FOLDER/<weights>/<2 characters>/<image>`, one file an image, mapped into memory when read.

A file is a head of 192 bytes (JSON, blanks, a newline) and the numbers, rows columns C. It is written aside and renamed, so
that it is whole or not there, and bears a digest of its name, head and numbers: what is torn, altered or another's is not used.
Any number of processes and runs may read and write one folder; any of it may be deleted at any time.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pixelbert_plugin.errors import replacing

logger = logging.getLogger(__name__)
HEAD = 192  # bytes: a multiple of 64, as memory is aligned for vector instructions
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
SHARE_LEFT_FREE = 0.05  # of the disk: a cache must not fill it
PIECES = 4  # of the room that is left, what a process takes before it looks again, so that several stay within it together
ORPHAN_SECONDS = 3600.0  # a file that is written aside for so long was left by a kill


class FeatureStore:
    """Features of images by one encoder; small enough to be sent to workers."""

    def __init__(self, folder: Path, weights: str, max_bytes: int, writers: int = 1):
        """`weights`: the digest of all that features depend on beside the image. `max_bytes`: of all files below `folder`,
        those of other weights too. `writers`: processes of this run, which share what room there is."""
        self.folder, self.weights, self.max_bytes, self.writers = folder, weights, max_bytes, writers
        self._allowed = 0  # bytes that may be written before the folder is looked at again
        self._is_closed = False  # to writing
        self.is_full_told = False  # whether the user knows that not all will fit

    def name(self, image: Path) -> str | None:
        """What an image's features are kept by: the file's path, size and time. None where there is no such file."""
        try:
            status = image.stat()
        except (OSError, ValueError):  # no file; no name of one
            return None
        described = f"{os.path.abspath(image)}\n{status.st_size}\n{status.st_mtime_ns}"
        return hashlib.blake2b(described.encode(errors="surrogateescape"), digest_size=16).hexdigest()

    def find(self, name: str) -> Tensor | None:
        """The features kept by this name, rows columns C; None where there are none that can be used."""
        try:
            return self.read(name)
        except (OSError, ValueError):
            return None

    def read(self, name: str) -> Tensor:
        """As `find`. Raises FileNotFoundError, another OSError, or ValueError where they are not as they were written."""
        path = self._path(name)
        size = path.stat().st_size
        try:
            content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
            head, numbers = json.loads(content[:HEAD].numpy().tobytes()), content[HEAD:]
            shape = tuple(map(int, head["shape"]))
            if head["digest"] != self._digest(name, head["dtype"], shape, numbers):
                raise ValueError("another digest")
            rows, columns, channels = shape
            return numbers.view(DTYPES[head["dtype"]]).view(rows, columns, channels)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is torn or altered") from error

    def holds(self, image: Path) -> bool:
        """Whether there is a file of an image's features; it is not read."""
        name = self.name(image)
        return name is not None and self._path(name).is_file()

    def write(self, name: str, features_RCC: Tensor) -> bool:
        """Keep features, where there is room for them. Returns whether they are kept; why not is said once."""
        values = features_RCC.detach().cpu().contiguous()
        numbers = values.view(-1).view(torch.uint8)
        if self._is_closed or not self._take(HEAD + len(numbers)):
            return False
        dtype = str(values.dtype).removeprefix("torch.")
        head = {"shape": list(values.shape), "dtype": dtype, "digest": self._digest(name, dtype, tuple(values.shape), numbers)}
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as aside, aside.open("wb") as file:
                file.write(json.dumps(head).encode().ljust(HEAD - 1) + b"\n")
                file.write(numbers.numpy().data)
        except OSError as error:
            self._close(f"cannot be written ({error.strerror or error})")
            return False
        return True

    def room(self) -> int:
        """Bytes that may still be written, by all processes: of `max_bytes`, and of what the disk has free. 0 or more."""
        nearest = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        try:
            disk = shutil.disk_usage(nearest)
        except OSError:
            return 0
        return max(0, min(self.max_bytes - sum(self._sizes()), disk.free - int(SHARE_LEFT_FREE * disk.total)))

    def _take(self, size: int) -> bool:
        """Whether there is room for so many bytes, which then are this process's."""
        if self._allowed < size:
            room = self.room()
            self._allowed = max(room // (PIECES * self.writers), size if room >= size else 0)
        if self._allowed < size:
            self._close("is full", is_told=self.is_full_told)
            return False
        self._allowed -= size
        return True

    def _close(self, reason: str, is_told: bool = False) -> None:
        self._is_closed = True
        if not is_told:
            logger.warning(
                "%s %s: features that are not there are computed each time (env.max_features_gb=%g; the disk keeps %d %% free; "
                "folders of earlier weights in it may be deleted)",
                *(self.folder, reason, self.max_bytes / 1e9, 100 * SHARE_LEFT_FREE),
            )

    def _sizes(self) -> Iterator[int]:
        """Of every file, in bytes; what kills left aside is deleted on the way."""
        for file in _files(self.folder):
            try:
                status = file.stat()
                if file.name.startswith(".") and time.time() - status.st_mtime > ORPHAN_SECONDS:
                    os.unlink(file.path)
                    continue
            except OSError:  # another process was faster, or may not
                continue
            yield status.st_size

    def _digest(self, name: str, dtype: str, shape: tuple[int, ...], numbers: Tensor) -> str:
        digest = hashlib.blake2b(f"{self.weights} {name} {dtype} {shape} ".encode(), digest_size=16)
        digest.update(numbers.numpy().data)
        return digest.hexdigest()

    def _path(self, name: str) -> Path:
        return self.folder / self.weights / name[:2] / name


def _files(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    """Every file below a folder that may not be there, or not be read, or vanish meanwhile."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry
