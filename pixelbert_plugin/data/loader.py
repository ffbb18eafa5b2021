"""Batches on the device: torch's DataLoader over micro-batches, position by position.

Position = samples consumed since the start of training, over all epochs; nothing else is needed to go on from there.
"""

import ctypes
import logging
import math
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.order import epoch_size, evaluation_order, train_order, weighted_epoch
from pixelbert_plugin.data.reader import BatchReader, Failure, MicroBatch
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.types import Batch

logger = logging.getLogger(__name__)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@dataclass
class Loader:
    """Reads batches of a mixture in worker processes and finishes them on the device."""

    reader: BatchReader
    image: ImageProcessor
    device: torch.device
    num_workers: int
    images_M: np.ndarray  # number of each sample's image, from the mixture
    bucket_by_size: bool = False
    cache_dir: Path | None = None  # where the sizes of images are kept
    num_negatives: int = 0  # texts of other images beside each sample's own
    weights: dict[str, float] = field(default_factory=dict)  # by data set; 1 where none is given
    truncated_texts: int = 0  # so far
    bad_images: Counter = field(default_factory=Counter)  # how often each was skipped so far

    def __post_init__(self):
        mixture = self.mixture
        self.sizes_M2 = mixture.resized_sizes(self.images_M, self.image, self.cache_dir) if self.bucket_by_size else None
        self._parts = {name: (len(samples), self.weights.get(name, 1.0)) for name, samples in mixture.parts.items()}

    @property
    def mixture(self) -> Mixture:
        return self.reader.mixture

    def __len__(self) -> int:
        """Samples per epoch of training: the sum of the data sets' at their weights."""
        return sum(epoch_size(size, weight) for size, weight in self._parts.values())

    def updates(
        self, position: int, batch_size: int, micro_batch_size: int, texts_per_image: int | None
    ) -> Iterator[list[Batch]]:
        """Endless: for each update its micro-batches, from `position` on. The last update of an epoch may be short."""
        seed = self.reader.seed

        def micro_batches() -> Iterator[MicroBatch]:
            epoch, start = divmod(position, len(self))
            while True:
                order = self.order(seed, epoch, batch_size, texts_per_image)
                for at in range(start, len(order), batch_size):
                    ids = order[at : at + batch_size]
                    for first in range(0, len(ids), micro_batch_size):
                        yield MicroBatch(epoch, ids[first : first + micro_batch_size], True, self.num_negatives)
                epoch, start = epoch + 1, 0

        batches = self._read(micro_batches())
        left = len(self) - position % len(self)
        while True:
            pairs = min(batch_size, left)
            yield [next(batches) for _ in range(math.ceil(pairs / micro_batch_size))]
            left = left - pairs or len(self)

    def order(self, seed: int, epoch: int, batch_size: int, texts_per_image: int | None) -> np.ndarray:
        """The samples of an epoch in order; see `weighted_epoch` for how repeated ones are numbered."""
        ids = weighted_epoch(self.images_M, self._parts, seed, epoch, texts_per_image)
        sample_ids = ids % len(self.images_M)
        sizes = None if self.sizes_M2 is None else self.sizes_M2[sample_ids]
        return ids[train_order(self.images_M[sample_ids], seed, epoch, texts_per_image, batch_size, sizes)]

    def evaluate(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, without augmentation."""
        order = evaluation_order(self.images_M, self.sizes_M2)
        starts = range(0, len(order), batch_size)
        yield from self._read(MicroBatch(0, order[at : at + batch_size], False, self.num_negatives) for at in starts)

    def read(self, groups: Iterable[np.ndarray]) -> Iterator[Batch]:
        """A batch for each group of samples: without augmentation, without negatives."""
        yield from self._read(MicroBatch(0, indices, train=False) for indices in groups)

    def _read(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        loader = DataLoader(
            self.reader,
            sampler=micro_batches,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.num_workers else None,
            # forked workers share the samples' columns; Python 3.14 would start fresh ones and copy them
            multiprocessing_context="fork" if self.num_workers and sys.platform == "linux" else None,
            worker_init_fn=_end_with_parent,
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


def _end_with_parent(_worker: int) -> None:
    """A worker outlives a kill -9 of the run where it waits to hand over a batch: let Linux end it with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def padding_shares(batch: Batch) -> dict[str, float]:
    """Shares of the batch that are padding, in 0…1: of text positions and of image pixels."""
    height, width = batch.images.shape[-2:]
    own = float(batch.image_sizes.prod(dim=1).sum()) / (len(batch.image_sizes) * height * width)
    return {"text": 1 - float(batch.text_mask.float().mean()), "image": 1 - own}
