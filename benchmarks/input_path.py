"""From JPEG files to batches that are ready for the model, on a CPU: the naive way's time over ours, outputs shown to be equal.

    python benchmarks/input_path.py [--images 64] [--rounds 5] > benchmarks/input_path.txt

The naive way is a Dataset of Pillow and torchvision (open, Resize, ToTensor, Normalize) under torch's DataLoader, with a
collate function that pads; ours is the product's Loader. Both have two workers, batches of eight, one text to an image, and
resize by the paper's rule (800 by 1333). The pictures are noise of several scales, as large in a file as a photograph, all of
640 × 480 or of sizes about as frequent as in COCO. What counts is the processor's time of all processes, one thread each; the
two ways take turns, and medians are compared. Pillow rounds to whole levels of 255, ours does not: outputs differ by that.
"""

import argparse
import os
import platform
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as T
from decoding import encoded, picture
from PIL import Image
from side_by_side import HEAD, Ratio, compare, largest_difference
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixelbert_plugin import registry
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.reader import BatchReader, MicroBatch
from pixelbert_plugin.data.sampler import evaluation_order
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.types import Batch, Sample

BATCH, WORKERS = 8, 2
COCO = {  # width, height: about how many of a hundred images
    (640, 480): 31,
    (640, 427): 20,
    (480, 640): 11,
    (640, 426): 8,
    (500, 375): 6,
    (427, 640): 6,
    (640, 428): 4,
    (640, 360): 3,
    (500, 333): 3,
    (612, 612): 3,
    (375, 500): 2,
    (640, 512): 1,
    (424, 640): 1,
    (640, 640): 1,
}
LEVELS = 2 / 255 / 0.224 / 2.2  # two levels after normalising, relative to the largest value


class NaivePhotos(Dataset):
    """One pair an item, its image resized and normalised by torchvision's transforms."""

    def __init__(self, samples: list[Sample], tokenizer: Callable, resized: Callable[[int, int], tuple[int, int]]):
        self.samples, self.tokenizer, self.resized = samples, tokenizer, resized
        self.transform = T.Compose([T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.samples[index]
        image = Image.open(sample.images[0]).convert("RGB")
        image = T.Resize(self.resized(image.height, image.width))(image)
        return self.transform(image), torch.tensor(self.tokenizer(sample.text)[0])


def collate(items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Padded to the largest image and the longest text."""
    height, width = (max(image.shape[axis] for image, _ in items) for axis in (1, 2))
    images = torch.zeros(len(items), 3, height, width)
    for place, (image, _) in zip(images, items, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    texts = torch.nn.utils.rnn.pad_sequence([text for _, text in items], batch_first=True)
    return {"images": images, "input_ids": texts, "text_mask": texts != 0}


def photographs(folder: Path, sizes: dict[tuple[int, int], int], count: int) -> list[Sample]:
    """Files of these sizes, as many of each as its weight says, in a random order."""
    draw, files = random.Random(1), {}
    for size in sizes:
        files[size] = encoded(picture(*size), "JPEG", quality=90)
    chosen = draw.choices(list(sizes), list(sizes.values()), k=count)
    samples = []
    for number, size in enumerate(chosen):
        path = folder / f"{size[0]}x{size[1]}_{number}.jpg"
        path.write_bytes(files[size])
        text = " ".join(draw.choices(["a", "man", "on", "the", "left", "of", "dog"], k=draw.randint(8, 14)))
        samples.append(Sample(sample_id=number, image_ids=(number,), images=(path,), text=text))
    return samples


class Ways:
    """The two ways of one set of files."""

    def __init__(self, samples: list[Sample]):
        image = registry.build("processor", "image", {}, "p")
        text = registry.build("processor", "bert_tokenizer", {"vocab_size": 100}, "t")
        text.fit(sample.text for sample in samples)
        self.mixture = Mixture("train", {"photographs": samples})
        reader = BatchReader(self.mixture, text, image, lambda batch, seeds: None, seed=1)
        self.loader = Loader(reader, torch.device("cpu"), WORKERS, self.mixture.resized_sizes(image))
        self.photos = NaivePhotos(samples, text, image.resized)

    def naive(self) -> Iterator[dict[str, Tensor]]:
        """An epoch, images in the order of their files, which is random."""
        yield from DataLoader(self.photos, BATCH, num_workers=WORKERS, collate_fn=collate)

    def ours(self) -> Iterator[Batch]:
        """An epoch, images of like size together."""
        yield from self.loader.read(self.groups())

    def groups(self) -> list[np.ndarray]:
        order = evaluation_order(self.mixture.images_M, self.loader.sizes_M2)
        return [order[at : at + BATCH] for at in range(0, len(order), BATCH)]

    def difference(self) -> float:
        """The largest difference of an image's values between the ways, relative to the largest value."""
        found, at = {}, 0
        for batch in self.ours():
            for number, image, size in zip(batch.sample_ids, batch.images, batch.image_sizes.tolist(), strict=True):
                found[number] = image[:, : size[0], : size[1]]
        largest = 0.0
        for batch in self.naive():
            for image in batch["images"]:
                height, width = found[at].shape[1:]
                largest = max(largest, largest_difference(image[:, :height, :width], found[at], LEVELS))
                at += 1
        return largest

    def work_naive(self) -> None:
        """What a worker does for one batch."""
        collate([self.photos[index] for index in range(BATCH)])

    def work_ours(self) -> None:
        self.loader.reader[MicroBatch(0, np.arange(BATCH), False)]


def all_processes() -> float:
    """Processor time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def rows(title: str, ways: Ways, rounds: int) -> Iterator[Ratio]:
    def consumed(batches: Callable[[], Iterator]) -> Callable[[], None]:
        def run() -> None:
            for _ in batches():
                pass

        return run

    note = f"outputs within {ways.difference():.0e}"
    yield compare(f"{title}, whole path", consumed(ways.naive), consumed(ways.ours), rounds, note, all_processes)
    yield compare(f"{title}, a worker's work for {BATCH}", ways.work_naive, ways.work_ours, 3 * rounds, clock=all_processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="of each set")
    parser.add_argument("--rounds", type=int, default=5, help="of each pair, interleaved")
    arguments = parser.parse_args()
    plugins.load()
    torch.set_num_threads(1)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow", "simplejpeg"))
    print(f"{packages}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{arguments.images} images of each set, {WORKERS} workers, batches of {BATCH}")
    print(f"\n{HEAD}")
    for title, sizes in (("640 × 480", {(640, 480): 1}), ("COCO's sizes", COCO)):
        with tempfile.TemporaryDirectory() as folder:
            ways = Ways(photographs(Path(folder), sizes, arguments.images))
            for row in rows(title, ways, arguments.rounds):
                print(row, flush=True)


if __name__ == "__main__":
    main()
