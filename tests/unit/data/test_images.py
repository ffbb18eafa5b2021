"""The one place that opens images: every format, what is refused, and hundreds of damaged files in a process of their own."""

import io
import multiprocessing
import os
import random
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pixelbert_plugin.data import images as images_module
from pixelbert_plugin.data.images import BadImageError, decode_image, read_image, upright_size
from pixelbert_plugin.tasks.base import Result
from pixelbert_plugin.training.pictures import figure
from pixelbert_plugin.types import Sample

DAMAGES_EACH = 12  # damaged copies of each kind of file


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    return exif


def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((57, 43))


def files() -> dict[str, bytes]:
    """A file of every format and of the modes that are decoded in ways of their own."""
    image, exif = picture(), turned_exif(6)
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    deep = Image.fromarray(np.random.default_rng(1).integers(0, 65535, (20, 30)).astype(np.uint16))
    kinds = {f"png {mode}": encoded(image.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    kinds |= {
        "png transparent palette": encoded(image.convert("P"), "PNG", transparency=3),
        "png 16 bits": encoded(deep, "PNG"),
        "png exif": encoded(image, "PNG", exif=exif),
        "png animated": encoded(image, "PNG", **frames),
        "jpeg": encoded(image, "JPEG"),
        "jpeg progressive": encoded(image, "JPEG", progressive=True),
        "jpeg restarts": encoded(image, "JPEG", restart_marker_blocks=3),
        "jpeg exif": encoded(image, "JPEG", exif=exif),
        "jpeg grey": encoded(image.convert("L"), "JPEG"),
        "jpeg CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "mpo": encoded(image, "MPO", **frames),
        "gif": encoded(image, "GIF"),
        "gif animated": encoded(image, "GIF", **frames),
        "bmp": encoded(image, "BMP"),
        "bmp palette": encoded(image.convert("P"), "BMP"),
        "webp": encoded(image, "WEBP"),
        "webp lossless": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "webp animated": encoded(image, "WEBP", **frames),
        "tiff fax": encoded(image.convert("1"), "TIFF", compression="group4"),
        "ppm": encoded(image, "PPM"),
        "jpeg 2000": encoded(image, "JPEG2000"),
    }
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        kinds[f"tiff {compression}"] = encoded(image, "TIFF", compression=compression)
    if "AVIF" in Image.OPEN:
        kinds["avif"] = encoded(image, "AVIF")
    return kinds


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A copy with one of the things that happen to files, as often as not near the header."""
    copy = bytearray(content)

    def place() -> int:
        return draw.randrange(min(len(copy), 150)) if draw.random() < 0.5 else draw.randrange(len(copy))

    match draw.randrange(6):
        case 0:
            copy[place()] ^= 1 << draw.randrange(8)
        case 1:
            for _ in range(draw.randint(2, 20)):
                copy[place()] ^= 1 << draw.randrange(8)
        case 2:
            start = place()
            copy[start : start + 20] = bytes(len(copy[start : start + 20]))
        case 3:
            del copy[place() :]
        case 4:
            one, other = place(), place()
            copy[one], copy[other] = copy[other], copy[one]
        case _:
            start = place()
            copy[start : start + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"))
    return bytes(copy)


def read_damaged(folder: Path, outcomes) -> None:
    """In a child: read each file, and send how many were images, how many refused, and everything else."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff's remarks
    draw, counts, wrong = random.Random(1), {"image": 0, "refused": 0}, []
    for kind, content in files().items():
        for number in range(DAMAGES_EACH):
            path = folder / f"{kind} {number}"
            path.write_bytes(damaged(content, draw))
            try:
                image = read_image(path)
                counts["image"] += 1
                if image.dtype != torch.uint8 or image.shape[0] != 3 or upright_size(path) != tuple(image.shape[1:]):
                    wrong.append(f"{path}: {image.dtype} {tuple(image.shape)}")
            except BadImageError as error:
                counts["refused"] += 1
                if str(path) not in str(error) or "\n" in str(error) or len(str(error)) > 600:
                    wrong.append(repr(error))
            except BaseException as error:
                wrong.append(f"{path}: {error!r}")
    outcomes.send((counts, wrong))


def test_damaged_files_of_every_format_are_images_or_refused_and_never_end_the_process(tmp_path):
    received, sent = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=read_damaged, args=(tmp_path, sent))
    child.start()
    sent.close()
    child.join(60)
    assert child.exitcode == 0
    counts, wrong = received.recv()
    assert wrong == []
    assert sum(counts.values()) == DAMAGES_EACH * len(files()) >= 300 and min(counts.values()) > 50


def test_any_flipped_bit_of_a_png_is_refused(tmp_path):
    """Where torchvision's decoder ended the process: a bit of the compressed pixels, with a palette and without."""
    draw, path = random.Random(2), tmp_path / "a.png"
    for kind in ("png RGB", "png P", "png transparent palette", "png L"):
        content = files()[kind]
        start, end = content.index(b"IDAT") + 4, content.index(b"IEND") - 4
        for _ in range(25):
            copy = bytearray(content)
            copy[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
            path.write_bytes(copy)
            with pytest.raises(BadImageError, match=r"a\.png: not a readable image \(\d+ bytes; "):
                read_image(path)


@pytest.mark.parametrize("kind", ["png RGB", "jpeg", "jpeg progressive", "jpeg CMYK", "gif", "bmp", "webp", "tiff None", "ppm"])
def test_a_truncated_file_is_refused(tmp_path, kind):
    content = files()[kind]
    for share in (0.3, 0.6, 0.9, 0.97):
        (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
        with pytest.raises(BadImageError, match="cut: not a readable image"):
            read_image(tmp_path / "cut")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(0, 10))
def test_every_orientation_is_turned_as_pillow_turns_it_and_its_size_agrees(tmp_path, kind, orientation):
    content = encoded(picture(), kind, exif=turned_exif(orientation))
    (tmp_path / "a").write_bytes(content)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")).transpose(2, 0, 1)
    image = read_image(tmp_path / "a")
    assert np.array_equal(image.numpy(), expected) and upright_size(tmp_path / "a") == tuple(image.shape[1:])


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg restarts", "jpeg exif", "jpeg grey", "jpeg CMYK", "mpo"])
@pytest.mark.parametrize("with_simplejpeg", [True, False])
def test_jpegs_have_the_bits_that_pillow_gives(monkeypatch, kind, with_simplejpeg):
    if with_simplejpeg:
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(images_module, "simplejpeg", None)
    content = files()[kind]
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode_image(content).numpy(), expected)


def test_a_jpeg_with_bytes_too_many_is_read_as_pillow_reads_it():
    """Cameras write such files, and viewers show them: the strict decoder refuses, and Pillow judges."""
    content = files()["jpeg"]
    for odd in (content[:-2] + b"\x12\x34\x56" + content[-2:], content + b"trailing bytes"):
        assert torch.equal(decode_image(odd), decode_image(content))


def test_a_broken_exif_block_is_as_good_as_none(tmp_path):
    exif = turned_exif(6).tobytes()
    plain = decode_image(files()["jpeg"])
    for block in (
        exif[:8],
        exif[:20],
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0rubbish",
        exif[:18] + b"\xff" * 6 + exif[24:],
    ):
        for kind in ("JPEG", "PNG", "WEBP"):
            (tmp_path / "a").write_bytes(encoded(picture(), kind, exif=block))
            image = read_image(tmp_path / "a")
            assert upright_size(tmp_path / "a") == tuple(image.shape[1:]) and sorted(image.shape) == sorted(plain.shape)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.symlink("/dev/zero", tmp_path / "device.jpg")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling.jpg")
    os.symlink(tmp_path / "good", tmp_path / "link.jpg")
    (tmp_path / "good").write_bytes(files()["jpeg"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        cases = {
            "pipe.jpg": "is a named pipe, not an image file",
            "folder.jpg": "is a folder, not an image file",
            "device.jpg": "is a device, not an image file",
            "socket.jpg": "is a socket, not an image file",
            "dangling.jpg": "No such file",
            "nul\0.jpg": "null",
        }
        for name, message in cases.items():
            for opens in (read_image, upright_size):
                with pytest.raises(BadImageError, match=message):
                    opens(tmp_path / name)
    assert upright_size(tmp_path / "link.jpg") == tuple(read_image(tmp_path / "link.jpg").shape[1:]) == (43, 57)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),  # Pillow alone would start Ghostscript
        (b"%PDF-1.7\n", "a PDF document"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"\n <!DOCTYPE html><html>Not found</html>", "a web page; the download failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (b"some text", "no known image format"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "a damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "a damaged PNG"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, message):
    (tmp_path / "a.jpg").write_bytes(content)
    for opens in (read_image, upright_size):
        with pytest.raises(BadImageError, match=f"a.jpg: not a readable image .*{message}"):
            opens(tmp_path / "a.jpg")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def huge_gif(in_frame: bool) -> bytes:
    content = bytearray(files()["gif"])
    frame = content.index(b"\x2c", 13 + 3 * 256) if in_frame else None
    where = frame + 5 if in_frame else 6
    content[where : where + 4] = b"\xff\xff\xff\xff"
    return bytes(content)


def huge_bmp() -> bytes:
    content = bytearray(files()["bmp"])
    content[18:26] = struct.pack("<ii", 60_000, 60_000)
    return bytes(content)


def test_pixels_beyond_the_limit_are_refused_before_they_are_decoded(tmp_path):
    bombs = {"png": huge_png(), "gif": huge_gif(False), "gif's frame": huge_gif(True), "bmp": huge_bmp()}
    bombs["ppm"] = b"P6 50000 50000 255\n" + bytes(100)
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImageError, match=r"pixels.*max_pixels=178,956,970; raise processors.image.params.max_pixels"):
            read_image(tmp_path / name)
    for kind, content in files().items():  # the limit is the option's, for every format
        width, height = Image.open(io.BytesIO(content)).size
        decode_image(content, max_pixels=width * height)
        with pytest.raises(ValueError, match=f"max_pixels={width * height - 1:,}"):
            decode_image(content, max_pixels=width * height - 1)
        assert kind


def test_a_file_larger_than_its_pixels_allow_is_not_read_into_memory(tmp_path):
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.write(files()["jpeg"])
        file.truncate(1 << 40)
    with pytest.raises(BadImageError, match="larger than any image of 178,956,970 pixels"):
        read_image(tmp_path / "sparse.jpg")


def test_compressed_text_in_a_png_is_not_unpacked(tmp_path):
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000)))
    plain = files()["png RGB"]
    (tmp_path / "a.png").write_bytes(plain[:33] + bomb + plain[33:])
    with pytest.raises(BadImageError, match=r"a\.png: not a readable image"):
        read_image(tmp_path / "a.png")


def test_a_picture_for_tensorboard_is_what_the_model_sees_or_says_that_it_cannot_be_read(tmp_path):
    (tmp_path / "turned.jpg").write_bytes(files()["jpeg exif"])
    (tmp_path / "torn.png").write_bytes(files()["png RGB"][:300])
    results = []
    for name in ("turned.jpg", "torn.png"):
        sample = Sample(sample_id=name, image_ids=(name,), images=(tmp_path / name,), text="what?")
        results.append(Result(sample=sample, prediction="yes", truth="no"))
    turned, torn = figure(results).axes[:2]
    shown = np.asarray(turned.images[0].get_array())
    assert np.array_equal(shown, read_image(tmp_path / "turned.jpg").permute(1, 2, 0).numpy())
    assert [text.get_text() for text in torn.texts] == ["the image cannot be read"] and not torn.images
