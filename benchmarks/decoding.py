"""Which library decodes an image fastest, of those that could stand behind `data/images.py`: time per image and agreement.

    pip install simplejpeg torchcodec
    python benchmarks/decoding.py [--seconds 20] > benchmarks/decoding.txt

Each reader turns the bytes of one file into a uint8 tensor 3hw on one thread. They take turns, in another order each
round, so that whatever else the machine does falls on all of them; what counts is the processor's time, of which the median
is compared with that of torchvision, which read both formats here before. The pictures are noise of several scales, as large
in a file as a photograph (0.2 bytes a pixel as JPEG).
"""

import argparse
import io
import platform
import random
import statistics
import time
import warnings
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image

from pixelbert_plugin.data import images

SIZES = {"COCO's 640 × 480": (640, 480), "NLVR2's 1024 × 768": (1024, 768)}


def picture(width: int, height: int) -> Image.Image:
    """Noise of several scales, which an encoder finds as hard as a photograph."""
    draw, total = np.random.default_rng(1), np.zeros((height, width, 3))
    for scale, weight in ((128, 60), (32, 30), (8, 14), (2, 6)):
        noise = draw.normal(0, weight, (-(-height // scale), -(-width // scale), 3))
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel].astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(layer)
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def with_torchvision(content: bytes) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(as_tensor(content), mode=ImageReadMode.RGB, apply_exif_orientation=True)


def with_pillow(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)


def with_simplejpeg(content: bytes) -> torch.Tensor:
    import simplejpeg

    return torch.from_numpy(simplejpeg.decode_jpeg(content)).permute(2, 0, 1)


def with_torchcodec(content: bytes) -> torch.Tensor:
    from torchcodec.decoders import decode_image

    return decode_image(content)


READERS = {
    "torchvision": with_torchvision,
    "data/images.py": images.decode_image,
    "Pillow": with_pillow,
    "simplejpeg": with_simplejpeg,
    "torchcodec": with_torchcodec,
}


def measure(content: bytes, readers: dict, seconds: float) -> dict[str, list[float]]:
    """Seconds of the processor in every call, by reader."""
    times, order, end = {name: [] for name in readers}, list(readers), time.perf_counter() + seconds
    while time.perf_counter() < end:
        random.shuffle(order)
        for name in order:
            began = time.process_time()
            readers[name](content)
            times[name].append(time.process_time() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="for each kind of file")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    packages = ("torch", "torchvision", "pillow", "simplejpeg", "torchcodec")
    print(f"python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages))
    print("one thread; medians; ratio: times faster than torchvision (above 1) or slower (below)")
    for title, size in SIZES.items():
        image = picture(*size)
        files = {
            "JPEG, quality 90": encoded(image, "JPEG", quality=90),
            "JPEG, progressive": encoded(image, "JPEG", quality=90, progressive=True),
            "PNG": encoded(image, "PNG"),
        }
        for kind, content in files.items():
            readers = {name: reader for name, reader in READERS.items() if kind != "PNG" or name != "simplejpeg"}
            base = with_torchvision(content).int()
            times = measure(content, readers, seconds)
            middle = {name: statistics.median(values) for name, values in times.items()}
            print(f"\n{title}, {kind}: {len(content):,} bytes, {len(times['torchvision'])} rounds")
            for name, reader in readers.items():
                off = (reader(content).int() - base).abs().max().item()
                same = "equal" if off == 0 else f"off by up to {off}"
                print(f"  {name:15} {1e3 * middle[name]:7.2f} ms   {middle['torchvision'] / middle[name]:5.2f} ×   {same}")


if __name__ == "__main__":
    main()
