"""Batches on the device: torch's DataLoader over micro-batches, position by position.

Position = samples consumed since the start of training, over all epochs; nothing else is needed to go on from there.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.order import evaluation_order, train_order
from pixelbert_plugin.data.reader import BatchReader, Failure, MicroBatch
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.types import Batch

logger = logging.getLogger(__name__)


@dataclass
class Loader:
    """Reads batches of a mixture in worker processes and finishes them on the device."""

    reader: BatchReader
    image: ImageProcessor
    device: torch.device
    num_workers: int
    bucket_by_size: bool = False
    truncated_texts: int = 0  # so far
    bad_images: Counter = field(default_factory=Counter)  # how often each was skipped so far

    def __post_init__(self):
        mixture = self.mixture
        self.images_M = mixture.image_numbers()
        self.sizes_M2 = mixture.resized_sizes(self.images_M, self.image) if self.bucket_by_size else None

    @property
    def mixture(self) -> Mixture:
        return self.reader.mixture

    def __len__(self) -> int:
        """Samples (pairs) per epoch."""
        return len(self.images_M)

    def updates(
        self, position: int, batch_size: int, micro_batch_size: int, texts_per_image: int | None
    ) -> Iterator[list[Batch]]:
        """Endless: for each update its micro-batches, from `position` on. The last update of an epoch may be short."""
        seed = self.reader.seed

        def micro_batches() -> Iterator[MicroBatch]:
            epoch, start = divmod(position, len(self))
            while True:
                order = train_order(self.images_M, seed, epoch, texts_per_image, batch_size, self.sizes_M2)
                for at in range(start, len(order), batch_size):
                    ids = order[at : at + batch_size]
                    for first in range(0, len(ids), micro_batch_size):
                        yield MicroBatch(epoch, ids[first : first + micro_batch_size], train=True)
                epoch, start = epoch + 1, 0

        batches = self._read(micro_batches())
        left = len(self) - position % len(self)
        while True:
            pairs = min(batch_size, left)
            yield [next(batches) for _ in range(math.ceil(pairs / micro_batch_size))]
            left = left - pairs or len(self)

    def evaluate(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, without augmentation."""
        order = evaluation_order(self.images_M, self.sizes_M2)
        starts = range(0, len(order), batch_size)
        yield from self._read(MicroBatch(0, order[start : start + batch_size], train=False) for start in starts)

    def _read(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        loader = DataLoader(
            self.reader,
            sampler=micro_batches,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.num_workers else None,
        )
        for batch in loader:
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            self.truncated_texts += batch.num_truncated
            for reason in batch.bad_images:
                if reason not in self.bad_images:
                    logger.warning("skipped: %s", reason)
                self.bad_images[reason] += 1
            yield self.image.to_device(batch, self.device)


def padding_shares(batch: Batch) -> dict[str, float]:
    """Shares of the batch that are padding, in 0…1: of text positions and of image pixels."""
    height, width = batch.images.shape[-2:]
    own = float(batch.image_sizes.prod(dim=1).sum()) / (len(batch.image_sizes) * height * width)
    return {"text": 1 - float(batch.text_mask.float().mean()), "image": 1 - own}
