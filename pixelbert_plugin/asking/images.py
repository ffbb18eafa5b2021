"""Images that are asked about: files and images in memory, by the rules of training (data/images.py), a batch ahead."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from pixelbert_plugin.data.images import BadImageError, ImageSource
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import ImageProcessor

# a folder's files that are taken for images, by their names; what one holds is told by its content
SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .mpo .png .gif .bmp .dib .webp .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k .avif".split(),
)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image as the processor of images has read it: 3 h w uint8. It can be asked about in the place of its file."""

    pixels: Tensor


def decoded(processor: ImageProcessor, source: "ImageSource | Decoded") -> Tensor:
    """3 h w uint8. Raises BadImageError."""
    return source.pixels if isinstance(source, Decoded) else processor.decode(source)


def read_some(processor: ImageProcessor, sources: Sequence[ImageSource]) -> list[Decoded | str]:
    """Each image, or why it cannot be read."""
    found: list[Decoded | str] = []
    for source in sources:
        try:
            found.append(Decoded(decoded(processor, source)))
        except BadImageError as error:
            found.append(str(error))
    return found


def in_folder(folder: Path, key: str) -> list[Path]:
    """The image files below a folder, by their names, hidden ones left out, sorted. Raises UserError where there is none."""
    if not folder.is_dir():
        kind = "is a file; name the folder that it is in, or give a list of images" if folder.exists() else "no such folder"
        raise UserError(f"{key}={str(folder)!r}: {kind}")
    found = []
    for place, folders, names in os.walk(folder, onerror=_unreadable(key)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise UserError(f"{key}={str(folder)!r}: holds no image file ({', '.join(SUFFIXES[:6])}, …)")
    return sorted(found)


def _unreadable(key: str) -> Callable[[OSError], None]:
    def told(error: OSError) -> None:
        raise UserError(f"{key}: {error.filename}: cannot be read ({error.strerror})") from error

    return told


def ahead(make: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`make(item)` of each in order; the next one is made by a thread while the caller works on this one.

    One thread alone: Pillow's limit on pixels is a setting of the process.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for item in items:
            future = thread.submit(make, item)
            if coming is not None:
                yield coming.result()
            coming = future
        if coming is not None:
            yield coming.result()
