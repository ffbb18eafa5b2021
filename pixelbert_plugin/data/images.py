"""The one place that opens an image: for the model, for sizes from headers, for TensorBoard's pictures and for `check`;
and that takes one from memory, by the same rules.

Image files come from anywhere, so one rule holds for all of them. A path must name a regular file (a link to one will do): a
pipe, a device or a folder is refused unopened. Pillow reads the header, of the formats below alone, and with it the limit
on pixels is kept before any pixel is decoded. EXIF turns the image upright; a broken EXIF block is as good as none. Then
JPEG is decoded by simplejpeg, which is as fast as torchvision's decoder was and gives the same bits (benchmarks/decoding.txt),
and the rest by Pillow: torchvision's PNG decoder ends the whole process at one flipped bit, and its decoders are to be removed.

3hw: uint8 RGB, upright. Raises BadImageError, which names the file, for all that is no readable image.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pixelbert_plugin.errors import RunError
from pixelbert_plugin.processors.options import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow gives the same bits, at two thirds of the speed
    simplejpeg = None

# a file, its content, Pillow's image, or uint8 RGB: an array H W 3 or a tensor 3 H W
ImageSource: TypeAlias = "str | Path | bytes | PilImage | np.ndarray | Tensor"

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")  # Pillow's names
BYTES_PER_PIXEL, BYTES_BESIDE = 16, 1 << 26  # no file that keeps the limit on pixels is larger: RGBA of 32 bits, metadata
REMEDY = "raise processors.image.params.max_pixels if that is meant"
ORIENTATION = 0x0112  # EXIF's tag
NO_IMAGES = {  # how files begin that are often found in an image's place
    b"version https://git-lfs": "a pointer of Git LFS, not the image itself; fetch it with 'git lfs pull'",
    b"%PDF": "a PDF document",
    b"%!PS": "PostScript",
    b"<svg": "an SVG drawing; convert it to PNG",
    b"<?xml": "XML or an SVG drawing; convert a drawing to PNG",
    b"<!doctype html": "a web page; the download failed",
    b"<html": "a web page; the download failed",
}
SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP"}

# what Pillow warns of (odd EXIF, palettes with transparency, a TIFF's tags) is either harmless or becomes a BadImageError
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadImageError(Exception):
    """An image file that is missing, truncated, too large or of no known format; the message names it."""


def read_image(source: ImageSource, max_pixels: int | None = MAX_PIXELS) -> Tensor:
    """3hw of an image file, known by its content, not its name; or of an image in memory, which is left as it is."""
    if not isinstance(source, str | Path):
        with _naming("the image") as size:
            return _from_memory(source, size, max_pixels)
    path = Path(source)
    with _naming(path) as size, opened(path) as file:
        size.append(os.fstat(file.fileno()).st_size)
        if max_pixels is not None and size[0] > BYTES_PER_PIXEL * max_pixels + BYTES_BESIDE:
            raise ValueError(f"larger than any image of {max_pixels:,} pixels, the limit of max_pixels")
        return decode_image(file.read(), max_pixels)


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as `read_image` gives it, from its header."""
    with _naming(path) as size, opened(path) as file:
        size.append(os.fstat(file.fileno()).st_size)
        image = _identified(file, file.read(32), None)
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def decode_image(content: bytes, max_pixels: int | None = MAX_PIXELS) -> Tensor:
    """3hw of an image file's content. Raises what its decoder raises."""
    image = _identified(io.BytesIO(content), content[:32], max_pixels)
    orientation = _orientation(image)
    array_HW3 = None
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        array_HW3 = _fast_jpeg(content)
    if array_HW3 is None:
        if image.format == "PNG":
            _identified(
                io.BytesIO(content), content[:32], max_pixels
            ).verify()  # the chunks' sums, which decoding does not look at
        array_HW3 = _as_rgb(image)
        if max_pixels is not None and array_HW3.shape[0] * array_HW3.shape[1] > max_pixels:  # the header did not say so
            raise ValueError(_too_large(array_HW3.shape[1], array_HW3.shape[0], max_pixels))
    return _turned(torch.from_numpy(array_HW3).permute(2, 0, 1), orientation)


def _from_memory(source: Any, size: list[int], max_pixels: int | None) -> Tensor:
    from PIL import Image

    if isinstance(source, bytes | bytearray | memoryview):
        size.append(len(source))
        return decode_image(bytes(source), max_pixels)
    if isinstance(source, Image.Image):
        width, height, orientation = *source.size, _orientation(source)
    elif isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.ndim == 3 and source.shape[2] == 3:
        (height, width), orientation = source.shape[:2], 1
    elif isinstance(source, Tensor) and source.dtype == torch.uint8 and source.ndim == 3 and source.shape[0] == 3:
        (height, width), orientation = source.shape[1:], 1
        source = source.detach().cpu().permute(1, 2, 0).numpy()
    else:
        what = f"a {type(source).__name__}"
        if isinstance(source, np.ndarray | Tensor):
            kind = "an array" if isinstance(source, np.ndarray) else "a tensor"
            what = f"{kind} of {str(source.dtype).removeprefix('torch.')}, {tuple(source.shape)}"
        raise ValueError(
            f"{what}; give a path, encoded bytes, Pillow's image, or uint8, RGB: an array of (height, width, 3) or a tensor of "
            "(3, height, width)"
        )
    if min(width, height) < 1:
        raise ValueError(f"{width} × {height} pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(_too_large(width, height, max_pixels))
    array_HW3 = np.array(source) if isinstance(source, np.ndarray) else _as_rgb(source)
    return _turned(torch.from_numpy(array_HW3).permute(2, 0, 1), orientation)


@contextmanager
def _naming(path: Path | str) -> Iterator[list[int]]:
    """Turns whatever is raised into a BadImageError that names the file and its size, once that is noted."""
    size: list[int] = []
    try:
        yield size
    except (RunError, BadImageError):  # SIGTERM may raise anywhere
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        found = f"{size[0]} bytes; {reason}" if size else reason
        raise BadImageError(f"{path}: not a readable image ({found})") from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The open file, if it is a regular one: opening a pipe would wait for ever, reading a device might."""
    try:
        _require_regular(path, os.stat(path).st_mode)
        # should it have become a pipe just now, the flag keeps the opening from waiting
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadImageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    with open(descriptor, "rb") as file:
        _require_regular(path, os.fstat(file.fileno()).st_mode)
        yield file


def why_no_file(path: Path) -> str:
    """What stands in the place of a file that is not there."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return "no such file"
    return "a file" if stat.S_ISREG(mode) else f"is {_irregular(mode)}, not an image file"


def _irregular(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise BadImageError(f"{path}: is {_irregular(mode)}, not an image file")


def _identified(file: BinaryIO, start: bytes, max_pixels: int | None) -> Any:
    """Pillow's image, of which the header is read. Raises ValueError for another format or too many pixels."""
    from PIL import Image, UnidentifiedImageError

    if not start:
        raise ValueError("the file is empty")
    Image.init()
    # Pillow's own limit would warn of what ours allows; it sees frames that are larger than their header says, at twice of it
    former, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        file.seek(0)
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise ValueError(f"far more pixels than max_pixels={max_pixels:,}; {REMEDY}") from error
    except UnidentifiedImageError as error:
        head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        other = next((kind for begin, kind in NO_IMAGES.items() if head.startswith(begin.lower())), None)
        broken = next((f"a damaged {kind}" for begin, kind in SIGNATURES.items() if start.startswith(begin)), None)
        raise ValueError(other or broken or "no known image format") from error
    finally:
        Image.MAX_IMAGE_PIXELS = former
    width, height = image.size
    if min(width, height) < 1:
        raise ValueError(f"{width} × {height} pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(_too_large(width, height, max_pixels))
    return image


def _too_large(width: int, height: int, max_pixels: int) -> str:
    return f"{width} × {height} pixels, more than max_pixels={max_pixels:,}; {REMEDY}"


def _orientation(image: Any) -> int:
    """1 … 8 of the EXIF block before the pixels; 1 without one, or where it is broken. Pillow turns TIFFs itself."""
    from PIL import Image

    if image.format == "TIFF" or not image.info.get("exif"):
        return 1
    try:
        exif = Image.Exif()
        exif.load(image.info["exif"])
        value = exif.get(ORIENTATION, 1)
    except Exception:  # struct.error, TypeError, SyntaxError and more, as the damage has it
        return 1
    return value if value in range(1, 9) else 1


def _turned(image_3hw: Tensor, orientation: int) -> Tensor:
    """Upright, as EXIF defines its eight orientations."""
    if orientation >= 5:
        image_3hw = image_3hw.transpose(1, 2)
    flipped = [axis for axis, turns in ((1, (3, 4, 7, 8)), (2, (2, 3, 6, 7))) if orientation in turns]
    return image_3hw.flip(flipped) if flipped else image_3hw


def _fast_jpeg(content: bytes) -> np.ndarray | None:
    """HW3, or None where the strict decoder finds fault: Pillow tells what is cut off from what can be read all the same."""
    try:
        return None if simplejpeg is None else simplejpeg.decode_jpeg(content)
    except ValueError:
        return None


def _as_rgb(image: Any) -> np.ndarray:
    """HW3 of the first frame. Transparency is dropped, 16 and 32 bits are scaled to 8."""
    from PIL import Image

    image.load()
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not defined")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip to 255 instead of scaling
        values = np.asarray(image).astype(np.int64)
        is_deep = ";16" in image.mode or values.max() > 255
        image = Image.fromarray((values >> 8 if is_deep else values).clip(0, 255).astype(np.uint8))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
