"""Batches on the device: torch's DataLoader over micro-batches, position by position.

Position = samples consumed by all processes since the start of training, over all epochs; nothing else is needed to go on
from there, on any number of processes: an update's samples are the same, each process takes a share of them.
"""

import logging
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.reader import BatchReader, Failure, MicroBatch
from pixelbert_plugin.data.sampler import epoch_size, evaluation_order, train_order, weighted_epoch
from pixelbert_plugin.data.workers import Wait, WorkerDeath, read_in_workers
from pixelbert_plugin.errors import Stopped, UserError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.types import Batch

logger = logging.getLogger(__name__)
MAX_WORKER_DEATHS = 3  # in a row, without a batch in between


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
    rank: int = 0  # of this process
    world_size: int = 1  # processes that share each update's samples, and the batches of an evaluation
    wait: Wait = field(default_factory=Wait)  # for a batch of the workers
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
        self, position: int, batch_size: int, micro_batch_size: int | None, texts_per_image: int | None
    ) -> Iterator[tuple[list[Batch], int]]:
        """Endless: for each update from `position` on, this process's micro-batches and the samples of all processes.

        `batch_size` is of all processes, `micro_batch_size` of one (None: its whole share). The last update of an epoch may
        be short. Every process gets as many micro-batches; where one's share is too small for that, a micro-batch is filled
        up with a sample that weighs nothing.
        """
        seed = self.reader.seed

        def updates() -> Iterator[list[MicroBatch]]:
            epoch, start = divmod(position, len(self))
            while True:
                order = self.order(seed, epoch, batch_size, texts_per_image)
                for at in range(start, len(order), batch_size):
                    ids = order[at : at + batch_size]
                    leaders = self.leaders(ids)
                    shares = share(np.arange(len(ids)), self.rank, self.world_size, micro_batch_size)
                    yield [
                        MicroBatch(epoch, ids[places], True, self.num_negatives, is_filler, leaders[places])
                        for places, is_filler in shares
                    ]
                epoch, start = epoch + 1, 0

        batches = self._read(micro_batch for update in updates() for micro_batch in update)
        left = len(self) - position % len(self)
        while True:
            samples = min(batch_size, left)
            largest = math.ceil(samples / self.world_size)
            yield [next(batches) for _ in range(math.ceil(largest / (micro_batch_size or largest)))], samples
            left = left - samples or len(self)

    def order(self, seed: int, epoch: int, batch_size: int, texts_per_image: int | None) -> np.ndarray:
        """The samples of an epoch in order; see `weighted_epoch` for how repeated ones are numbered."""
        ids = weighted_epoch(self.images_M, self._parts, seed, epoch, texts_per_image)
        sample_ids = ids % len(self.images_M)
        sizes = None if self.sizes_M2 is None else self.sizes_M2[sample_ids]
        return ids[train_order(self.images_M[sample_ids], seed, epoch, texts_per_image, batch_size, sizes)]

    def leaders(self, ids: np.ndarray) -> np.ndarray:
        """For each of an update's samples, the first of those that share its images: the group that one draw is made for."""
        _, first, group = np.unique(self.images_M[ids % len(self.images_M)], return_index=True, return_inverse=True)
        return ids[first[group]]

    def evaluate(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, without augmentation. Whole batches are dealt to the processes, so that no result depends on
        how many there are."""
        order = evaluation_order(self.images_M, self.sizes_M2)
        starts = range(0, len(order), batch_size)[self.rank :: self.world_size]
        micro_batches = (MicroBatch(0, order[at : at + batch_size], False, self.num_negatives) for at in starts)
        yield from self._until_stopped(self._read(micro_batches))

    def read(self, groups: Iterable[np.ndarray], num_negatives: int = 0) -> Iterator[Batch]:
        """A batch for each group of samples: without augmentation, each with so many texts of other images."""
        yield from self._until_stopped(self._read(MicroBatch(0, indices, False, num_negatives) for indices in groups))

    def _until_stopped(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches of an evaluation, which SIGTERM and Ctrl-C end between two of them. Several processes end it together."""
        for batch in batches:
            if self.world_size == 1 and self.wait.is_interrupted():
                raise Stopped("stopped in an evaluation; checkpoint.resume=true goes on from the last checkpoint")
            yield batch

    def _read(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        """The batch of each micro-batch, in order. Where a worker dies, new ones go on from the first batch that is missing."""
        asked: deque[MicroBatch] = deque()  # and not yet given

        def remaining(again: list[MicroBatch]) -> Iterator[MicroBatch]:
            yield from again  # these stand in `asked` already
            for micro_batch in source:
                asked.append(micro_batch)
                yield micro_batch

        source, deaths, pins = iter(micro_batches), 0, self.device.type == "cuda"
        while True:
            try:
                for batch in read_in_workers(self.reader, remaining(list(asked)), self.num_workers, pins, self.wait):
                    asked.popleft()
                    deaths = 0
                    yield self._received(batch)
                return
            except WorkerDeath as error:
                deaths += 1
                if deaths > MAX_WORKER_DEATHS:
                    raise UserError(
                        f"training.num_workers={self.num_workers}: workers die again and again: {error}; "
                        "training.num_workers=0 reads in the training process"
                    ) from error
                logger.warning("a data-loader worker died (%s): new ones go on where it was", error)

    def _received(self, batch: Batch | Failure) -> Batch:
        if isinstance(batch, Failure):
            raise UserError(batch.message)
        for reason in batch.bad_images:
            if reason not in self.bad_images:
                logger.warning("skipped: %s", reason)
            self.bad_images[reason] += 1
        return ready(batch, self.image, self.device)


def ready(batch: Batch, image: ImageProcessor, device: torch.device) -> Batch:
    """The batch on `device`, its uint8 images as the model takes them."""
    batch = batch.to(device)
    images_I3HW, sizes_I2 = image(batch.images, device)
    return replace(batch, images=images_I3HW, image_sizes=sizes_I2)


def share(ids: np.ndarray, rank: int, world_size: int, micro_batch_size: int | None) -> list[tuple[np.ndarray, bool]]:
    """This process's part of an update's samples as micro-batches, and of each whether it only fills up.

    Neighbours stay together, since they share images. All processes get as many micro-batches.
    """
    largest = math.ceil(len(ids) / world_size)
    micro = micro_batch_size or largest
    own = ids[len(ids) * rank // world_size : len(ids) * (rank + 1) // world_size]
    pieces = [own[at : at + micro] for at in range(0, largest, micro)]
    return [(piece, False) if len(piece) else (ids[:1], True) for piece in pieces]


def padding_shares(batch: Batch) -> dict[str, float]:
    """Shares of the batch that are padding, in 0…1: of text positions and of image pixels."""
    height, width = batch.images.shape[-2:]
    own = float(batch.image_sizes.prod(dim=1).sum()) / (len(batch.image_sizes) * height * width)
    return {"text": 1 - float(batch.text_mask.float().mean()), "image": 1 - own}


def mean_padding(batches: list[Batch]) -> dict[str, float]:
    """The mean of the batches' `padding_shares`."""
    shares = [padding_shares(batch) for batch in batches]
    return {name: sum(share[name] for share in shares) / len(shares) for name in shares[0]}
