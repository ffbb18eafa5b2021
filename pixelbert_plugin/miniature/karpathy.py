"""The Karpathy format, which COCO and Flickr30K share: every image with its split and its five sentences."""

import re
from typing import Any

from pixelbert_plugin.miniature.language import captions
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, generator

Sentences = dict[str, list[tuple[int, str]]]  # (id, caption) × 5 by the picture's path


def with_sentences(config: WorldConfig, pictures: list[Picture], ids: list[int]) -> Sentences:
    """Five captions for each picture, with their ids, by the picture's path."""
    texts = {item.path: captions(item.scene, generator(config, "captions", item.path)) for item in pictures}
    numbers = iter(ids)
    return {path: [(next(numbers), text) for text in lines] for path, lines in texts.items()}


def karpathy_image(index: int, item: Picture, sentences: Sentences) -> dict[str, Any]:
    """An image as Karpathy's files have it; index: its place among them."""
    return {
        "sentids": [number for number, _ in sentences[item.path]],
        "filename": item.path.split("/")[-1],
        "imgid": index,
        "split": item.part,
        "sentences": [
            {"tokens": re.findall(r"[a-z]+", text.lower()), "raw": text, "imgid": index, "sentid": number}
            for number, text in sentences[item.path]
        ],
    }
