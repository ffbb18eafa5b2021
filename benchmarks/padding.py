"""How much of a batch is padding, over real: pixels of images, and tokens of texts, as the transformer sees them.

    python benchmarks/padding.py [--images 5000] > benchmarks/padding.txt

Micro-batches are those of the product's Loader, for the batch sizes of the shipped recipes; only images are not read. Images
have sizes about as frequent as COCO's, a quarter of them some pixels off, and are resized by the paper's rule. Texts are the
miniature world's captions and region phrases, of about as many words as COCO's and Visual Genome's, and easy-VQA's questions. A
ratio of 1.05 says that for a hundred real ones five of padding are computed. "words and pixels": what the transformer computes,
which has 100 sampled pixels beside the words in pre-training, and all of them for questions.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from input_path import COCO

from pixelbert_plugin import registry
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.negatives import Negatives
from pixelbert_plugin.data.reader import BatchReader
from pixelbert_plugin.miniature import language
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import scenes
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.types import Batch, Sample


class Unread(ImageProcessor):
    """Sizes alone: a file's name says its own."""

    def decode(self, source: Path) -> torch.Tensor:
        width, height = map(int, source.stem.split("_")[0].split("x"))
        return torch.empty(3, height, width, device="meta")


def sizes(count: int) -> list[tuple[int, int]]:
    """Widths and heights."""
    draw = random.Random(1)
    found = []
    for width, height in draw.choices(list(COCO), list(COCO.values()), k=count):
        if draw.random() < 0.25:  # COCO has hundreds of sizes, most of them a few pixels from a frequent one
            height = max(200, height - draw.randint(0, 12))
        found.append((width, height))
    return found


def samples(texts: list[list[str]], shift: int = 0) -> list[Sample]:
    """Of each image its texts."""
    found = []
    for number, ((width, height), own) in enumerate(zip(sizes(len(texts)), texts, strict=True)):
        image = Path(f"{width}x{height}_{number}.jpg")
        for text in own:
            found.append(Sample(sample_id=len(found), image_ids=(number + shift,), images=(image,), text=text))
    return found


def loader(parts: dict[str, list[Sample]], negatives: int) -> Loader:
    mixture = Mixture("train", parts)
    image = Unread(ImageProcessor.Config())
    text = registry.build("processor", "bert_tokenizer", {}, "t")
    text.fit(sample.text for part in parts.values() for sample in part)
    reader = BatchReader(
        mixture, text, image, lambda batch, seeds: None, 1, Negatives(mixture, negatives) if negatives else None
    )
    sizes_M2 = np.array([image.resized(*image.decode(sample.images[0]).shape[-2:]) for sample in mixture])
    return Loader(reader, torch.device("cpu"), 0, sizes_M2)


def ratios(made: Loader, batch_size: int, micro: int, texts: int, pixels: int | None, updates: int) -> tuple[float, ...]:
    """Computed over real: pixels of images, words, and words and pixels together."""
    counts = np.zeros((3, 2), dtype=np.int64)
    iterator = made.updates(0, batch_size, micro, texts)
    for _ in range(updates):
        for batch in next(iterator)[0]:
            counts += counted(batch, made, pixels)
    return tuple(computed / real for computed, real in counts.tolist())


def counted(batch: Batch, made: Loader, pixels: int | None) -> np.ndarray:
    own = np.array([made.reader.image.resized(*image.shape[-2:]) for image in batch.images])
    images = [len(own) * own.max(0).prod(), own.prod(1).sum()]
    words_R = batch.text_mask.sum(1).numpy()
    grid = -(-own // 32) // 2  # ResNet-50 and 2 × 2 pooling
    kept = grid.prod(1) if pixels is None else np.minimum(pixels, grid.prod(1))
    most = grid.max(0).prod() if pixels is None else pixels
    rows, longest = batch.text_mask.shape
    words = [rows * longest, words_R.sum()]
    both = [rows * (longest + most), words_R.sum() + kept[batch.image_index[:, 0].numpy()].sum()]
    return np.array([images, words, both])


def settings(images: int) -> Iterator[tuple[str, Loader, tuple[int, int, int, int | None], int]]:
    """Name, loader, (samples an update, samples a micro-batch, texts an image, sampled pixels), updates."""
    draw = random.Random(2)
    world = scenes(WorldConfig(out="unused"), "coco train", "train", images)
    captions = [language.captions(scene, draw) for scene in world]
    phrases = [[phrase for phrase, _ in language.region_phrases(scene, draw, 12)] for scene in world]
    pretraining = {"coco": samples(captions), "visual_genome": samples(phrases, images)}
    yield "pre-training", loader(pretraining, 1), (2048, 64, 8, 100), 6
    yield "captions alone", loader({"coco": pretraining["coco"]}, 1), (2048, 64, 8, 100), 6
    try:
        import easy_vqa
    except ImportError:
        return
    texts = [[] for _ in easy_vqa.get_train_image_paths()]
    for text, _, image in zip(*easy_vqa.get_train_questions(), strict=True):
        texts[image].append(text)
    yield "easy-VQA's questions", loader({"easy_vqa": samples(texts)}, 0), (256, 32, 4, None), 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    plugins.load()
    images = parser.parse_args().images
    print(f"{images} images; computed over real\n")
    print(f"{'what':<26}{'images':>10}{'words':>10}{'words and pixels':>20}")
    for name, made, options, updates in settings(images):
        pixels, words, both = ratios(made, *options, updates)
        print(f"{name:<26}{pixels:>10.3f}{words:>10.3f}{both:>20.3f}", flush=True)


if __name__ == "__main__":
    main()
