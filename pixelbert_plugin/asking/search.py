"""Images found by a text. Each image goes through the CNN once, each text is embedded once; the transformer runs per pair.

I images of a block, L tokens, K pixels of an image, D hidden size.
"""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.asking.images import Decoded, ahead, in_folder, read_some
from pixelbert_plugin.asking.match import MatchQuestion, probabilities
from pixelbert_plugin.asking.question import Row, require_count
from pixelbert_plugin.asking.results import Found, SearchResults, Unreadable
from pixelbert_plugin.data.collate import ImageKey, collate, pad_texts
from pixelbert_plugin.data.images import ImageSource
from pixelbert_plugin.data.loader import ready
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import MatchingModel
from pixelbert_plugin.registry import returned
from pixelbert_plugin.system.progress import NoProgress
from pixelbert_plugin.types import Sample

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel


@dataclass(frozen=True, eq=False)
class Block:
    """Images that went through the CNN together."""

    indices: list[int]  # I: their places in what is searched
    pixels: Tensor  # I K D float
    mask: Tensor  # I K bool


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images that a model has encoded, to be searched any number of times. They lie in main memory.

    An image takes 4 bytes × hidden size for each of its pixels behind the CNN: half a megabyte at the paper's sizes.
    """

    images: tuple[str, ...]  # paths, or "image 3" of images in memory
    unreadable: tuple[Unreadable, ...]  # of them, those that are left out
    model: nn.Module  # that has encoded them
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        """How many images can be found."""
        return len(self.images) - len(self.unreadable)

    def __repr__(self) -> str:
        return f"Gallery({len(self)} images, {len(self.unreadable)} unreadable)"


Searched: TypeAlias = "Gallery | str | Path | list[ImageSource] | tuple[ImageSource, ...]"


class SearchQuestion(MatchQuestion):
    """The best images for a text. Raises UserError also where the model cannot encode images apart from texts."""

    method, images, text = "search", (), "text"

    def __init__(self, model: "LoadedModel", top_k: int = 1):
        super().__init__(model, top_k)
        registry.require("model", model.model, MatchingModel, "searching images by a text")
        self.matching = cast(MatchingModel, model.model)
        self.progress = NoProgress()  # told of the images that were read

    def gallery(self, images: Searched, batch_size: int) -> Gallery:
        """The images, encoded. Raises UserError where none can be read."""
        if isinstance(images, Gallery):
            if images.model is not self.model.model:
                raise UserError("search: this gallery was made by another model; make one by this model's gallery(…)")
            return images
        sources, names = listed(images)
        unreadable: list[Unreadable] = []
        blocks = tuple(self._blocks(sources, names, unreadable, batch_size))
        return Gallery(tuple(names), tuple(unreadable), self.model.model, blocks)

    def search(self, images: Searched, texts: Sequence[str], batch_size: int) -> list[SearchResults]:
        """For each text the `top_k` best images, `batch_size` pairs at a time. Nothing is kept of images but a gallery."""
        unreadable: list[Unreadable] = []
        if isinstance(images, Gallery):
            gallery = self.gallery(images, batch_size)
            names, blocks = list(gallery.images), iter(gallery.blocks)
            unreadable += gallery.unreadable
        else:
            sources, names = listed(images)
            blocks = self._blocks(sources, names, unreadable, batch_size)
        words = [self._embedded(text) for text in texts]
        best: list[list[tuple[float, int]]] = [[] for _ in texts]  # score and place, the best first
        for block in blocks:
            for number, (words_1LD, mask_1L) in enumerate(words):
                scored = zip(self._scores(block, words_1LD, mask_1L, batch_size), block.indices, strict=True)
                best[number] = heapq.nsmallest(self.top_k, [*best[number], *scored], key=lambda pair: (-pair[0], pair[1]))
        return [self._results(text, names, found, unreadable) for text, found in zip(texts, best, strict=True)]

    def rows(self, result: Any) -> list[Row]:
        return [{"image": each.image, "probability": each.probability, "score": each.score} for each in result.found]

    def _results(
        self, text: str, names: Sequence[str], best: list[tuple[float, int]], unreadable: list[Unreadable]
    ) -> SearchResults:
        values = probabilities(torch.tensor([score for score, _ in best], dtype=torch.float64))
        found = [Found(names[place], place, value, score) for (score, place), value in zip(best, values, strict=True)]
        return SearchResults(text, tuple(found), tuple(unreadable))

    def _blocks(
        self, sources: Sequence[ImageSource], names: Sequence[str], unreadable: list[Unreadable], batch_size: int
    ) -> Iterator[Block]:
        """The images that can be read, encoded; the others come to `unreadable`."""
        require_count("batch_size", batch_size)
        image, is_any = self.model.processors["image"], False
        groups = [range(start, min(start + batch_size, len(sources))) for start in range(0, len(sources), batch_size)]
        self.progress.begin(len(sources))
        for group, read in zip(groups, ahead(lambda group: read_some(image, [sources[i] for i in group]), groups), strict=True):
            unreadable += [Unreadable(names[i], each) for i, each in zip(group, read, strict=True) if isinstance(each, str)]
            found = {i: each for i, each in zip(group, read, strict=True) if isinstance(each, Decoded)}
            if found:
                is_any = True
                yield self._encoded(found)
            self.progress.advance(len(group))
        if not is_any:
            raise UserError(f"images: none of {len(sources)} can be read; the first: {unreadable[0].reason}")

    @torch.no_grad()
    def _encoded(self, images: dict[int, Decoded]) -> Block:
        keys: list[ImageKey] = [(place,) for place in images]
        samples = [Sample(sample_id=place, image_ids=(place,), images=(), text="") for place in images]
        pixels: dict[ImageKey, Tensor] = {(place,): image.pixels for place, image in images.items()}
        text = self.model.processors["text"]
        batch = collate(
            samples, [], [[key] for key in keys], pixels, dict.fromkeys(keys, 0), [1.0] * len(keys), text.pad_token_id
        )
        with self.model.autocast():
            memory = self.matching.encode_images(ready(batch, self.model.processors["image"], self.model.device))
        return Block(list(images), memory.pixels.cpu(), memory.mask.cpu())

    @torch.no_grad()
    def _embedded(self, text: str) -> tuple[Tensor, Tensor]:
        """1 L D and 1 L."""
        tokenizer, device = self.model.processors["text"], self.model.device
        ids_1L, mask_1L = pad_texts([tokenizer(text)[0]], tokenizer.pad_token_id)
        with self.model.autocast():
            return self.matching.embed_texts(ids_1L.to(device)), mask_1L.to(device)

    @torch.no_grad()
    def _scores(self, block: Block, words_1LD: Tensor, mask_1L: Tensor, batch_size: int) -> list[float]:
        """I: of the block's images with a text."""
        scores: list[float] = []
        for start in range(0, len(block.indices), batch_size):
            pixels_IKD = block.pixels[start : start + batch_size].to(self.model.device)
            mask_IK = block.mask[start : start + batch_size].to(self.model.device)
            here = len(pixels_IKD)
            with self.model.autocast():
                logits = self.matching.pair_logits(words_1LD.repeat(here, 1, 1), mask_1L.repeat(here, 1), pixels_IKD, mask_IK)
            scores_I = self.read(logits)
            returned.asked(self.model.task, self.asks, scores_I, (here,))
            if not torch.isfinite(scores_I).all():
                raise UserError("search: a score is not finite; load the model with precision='fp32'")
            scores += scores_I.tolist()
        return scores


def listed(images: Any) -> tuple[list[ImageSource], list[str]]:
    """The images of a folder or a list, and what each is called in results."""
    if isinstance(images, str | os.PathLike):
        files: Iterable[ImageSource] = in_folder(Path(images).expanduser(), "images")
        return list(files), [str(file) for file in files]
    if not isinstance(images, list | tuple):
        raise UserError(f"images: must be a folder, a list of images or a gallery, not {type(images).__name__}")
    if not images:
        raise UserError("images=[]: is an empty list; give one or more")
    return list(images), [str(each) if isinstance(each, str | Path) else f"image {i}" for i, each in enumerate(images)]
