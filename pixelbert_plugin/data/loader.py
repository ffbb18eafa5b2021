"""Batches on the device: torch's DataLoader over micro-batches, position by position.

Position = samples consumed by all processes since the start of training, over all epochs; nothing else is needed to go on
from there, on any number of processes: an update's samples are the same, each process takes a share of them.
"""

import logging
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from pixelbert_plugin.data.ahead import one_ahead
from pixelbert_plugin.data.image_features import ImageFeatures, padding_share
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.reader import BatchReader, Failure, MicroBatch, Reading
from pixelbert_plugin.data.sampler import by_text_length, epoch_size, evaluation_order, train_order, weighted_epoch
from pixelbert_plugin.data.workers import Wait, WorkerDeath, read_in_workers
from pixelbert_plugin.errors import Stopped, UserError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.types import Batch, PixelFeatures

logger = logging.getLogger(__name__)
MAX_WORKER_DEATHS = 3  # in a row, without a batch in between


@dataclass
class Loader:
    """Reads batches of a mixture in worker processes and finishes them on the device."""

    reader: BatchReader
    device: torch.device
    num_workers: int = 0
    sizes_M2: np.ndarray | None = None  # of each sample's first image after resizing, for batches of images of like size
    weights: dict[str, float] = field(default_factory=dict)  # by data set; 1 where none is given
    rank: int = 0  # of this process
    world_size: int = 1  # processes that share each update's samples, and the batches of an evaluation
    wait: Wait = field(default_factory=Wait)  # for a batch of the workers
    features: ImageFeatures | None = None  # a frozen encoder's, given to the model in the place of images; None: images are

    def __post_init__(self) -> None:
        self._parts = {name: (len(samples), self.weights.get(name, 1.0)) for name, samples in self.mixture.parts.items()}
        self._skipped: Counter[str] = Counter()
        self._grids: list[PixelFeatures] = []  # of the update that was last made ready, where features are kept

    @property
    def mixture(self) -> Mixture:
        return self.reader.mixture

    def __len__(self) -> int:
        """Samples per epoch of training: the sum of the data sets' at their weights."""
        return sum(epoch_size(size, weight) for size, weight in self._parts.values())

    @property
    def skipped_images(self) -> dict[str, int]:
        """Why each image was skipped so far, and how often."""
        return dict(self._skipped)

    def count_on(self, skipped_images: dict[str, int]) -> None:
        """Add what was skipped before a resume."""
        self._skipped.update(skipped_images)

    def updates(
        self,
        position: int,
        batch_size: int,
        micro_batch_size: int | None,
        texts_per_image: int | None,
        with_samples: bool = False,
    ) -> Iterator[tuple[list[Batch], int]]:
        """Endless: for each update from `position` on, this process's micro-batches as they were read, with images in uint8
        (`one_ahead` makes them ready for the model), and the samples of all processes.

        `batch_size` is of all processes, `micro_batch_size` of one (None: its whole share). The last update of an epoch may
        be short. Every process gets as many micro-batches; where one's share is too small for that, a micro-batch is filled
        up with a sample that weighs nothing. With `with_samples` the batches carry them, which training does not read.
        """
        seed = self.reader.seed

        def updates() -> Iterator[list[MicroBatch]]:
            epoch, start = divmod(position, len(self))
            while True:
                order = self.order(seed, epoch, batch_size, texts_per_image)
                for at in range(start, len(order), batch_size):
                    ids = order[at : at + batch_size]
                    leaders = self.leaders(ids)
                    shares = share(self.alike(ids), self.rank, self.world_size, micro_batch_size)
                    yield [
                        MicroBatch(epoch, ids[places], True, is_filler=is_filler, leaders=leaders[places])
                        for places, is_filler in shares
                    ]
                epoch, start = epoch + 1, 0

        batches = self._read((micro_batch for update in updates() for micro_batch in update), with_samples)
        left = len(self) - position % len(self)
        while True:
            samples = min(batch_size, left)
            largest = math.ceil(samples / self.world_size)
            yield [next(batches) for _ in range(math.ceil(largest / (micro_batch_size or largest)))], samples
            left = left - samples or len(self)

    def one_ahead(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Each of an update's micro-batches as the model takes it, made ready while the model computes on the one before."""
        self._grids = []
        return one_ahead(batches, self._ready_to_train, self.device)

    def _ready_to_train(self, batch: Batch) -> Batch:
        made = self.ready(batch)
        if made.features is not None:
            self._grids.append(made.features)
        return made

    def ready(self, batch: Batch) -> Batch:
        """A batch that was read, as the model takes it."""
        if self.features is not None:
            return self.features.ready(batch)
        return ready(batch, self.reader.image, self.device)

    def mean_padding(self, batches: list[Batch]) -> dict[str, float]:
        """The mean share of padding, in 0…1, of the batches of the update that was last made ready: of text positions, and of
        pixels of images, or of features' grids where these are kept."""
        texts = [1 - float(batch.text_mask.float().mean()) for batch in batches]
        grids = map(padding_share, self._grids)
        images = [*grids] if self.features is not None else [padding_share_of(batch, self.reader.image) for batch in batches]
        return {name: sum(shares) / len(shares) for name, shares in (("text", texts), ("image", images))}

    def order(self, seed: int, epoch: int, batch_size: int, texts_per_image: int | None) -> np.ndarray:
        """The samples of an epoch in order; see `weighted_epoch` for how repeated ones are numbered."""
        images_M = self.mixture.images_M
        ids = weighted_epoch(images_M, self._parts, seed, epoch, texts_per_image)
        sample_ids = ids % len(images_M)
        sizes = None if self.sizes_M2 is None else self.sizes_M2[sample_ids]
        return ids[train_order(images_M[sample_ids], seed, epoch, texts_per_image, batch_size, sizes)]

    def alike(self, ids: np.ndarray) -> np.ndarray:
        """The places of an update's samples, those together that are to share a micro-batch; see `by_text_length`."""
        sample_ids = ids % len(self.mixture)
        if self.sizes_M2 is None:
            return np.arange(len(ids))
        mixture = self.mixture
        return by_text_length(mixture.images_M[sample_ids], self.sizes_M2[sample_ids], mixture.text_bytes_M[sample_ids])

    def leaders(self, ids: np.ndarray) -> np.ndarray:
        """For each of an update's samples, the first of those that share its images: the group that one draw is made for."""
        images = self.mixture.images_M[ids % len(self.mixture)]
        _, first, group = np.unique(images, return_index=True, return_inverse=True)
        return ids[first[group]]

    def evaluate(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, without augmentation; the batches carry them. Whole batches are dealt to the processes, so that
        no result depends on how many there are."""
        order = evaluation_order(self.mixture.images_M, self.sizes_M2)
        starts = range(0, len(order), batch_size)[self.rank :: self.world_size]
        yield from self.read((order[at : at + batch_size] for at in starts), with_samples=True)

    def read(self, groups: Iterable[np.ndarray], with_samples: bool = False) -> Iterator[Batch]:
        """A batch for each group of samples, without augmentation."""
        yield from self._until_stopped(self._read((MicroBatch(0, group, False) for group in groups), with_samples))

    def read_images(self, groups: Iterable[np.ndarray]) -> Iterator[Batch]:
        """As `read`, without any text: nothing is tokenized, and the task prepares no targets."""
        yield from self._until_stopped(self._read(MicroBatch(0, group, False, with_texts=False) for group in groups))

    def _until_stopped(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches of an evaluation, ready for the model. SIGTERM and Ctrl-C end it between two of them; several processes end
        it together."""
        for batch in batches:
            if self.world_size == 1 and self.wait.is_interrupted():
                raise Stopped("stopped in an evaluation; checkpoint.resume=true goes on from the last checkpoint")
            yield self.ready(batch)

    def _read(self, micro_batches: Iterable[MicroBatch], with_samples: bool = False) -> Iterator[Batch]:
        """The batch of each micro-batch as it was read, in order, with its samples where they are asked for. Where a worker
        dies, new ones go on from the first batch that is missing."""
        asked: deque[MicroBatch] = deque()  # and not yet given
        if self.features is not None:
            self.reader.store = self.features.opened()

        def remaining(again: list[MicroBatch]) -> Iterator[MicroBatch]:
            yield from again  # these stand in `asked` already
            for micro_batch in source:
                asked.append(micro_batch)
                yield micro_batch

        source, deaths, pins = iter(micro_batches), 0, self.device.type == "cuda"
        while True:
            try:
                for reading in read_in_workers(self.reader, remaining(list(asked)), self.num_workers, pins, self.wait):
                    indices = asked.popleft().indices % len(self.mixture)
                    deaths = 0
                    batch = self._received(reading)
                    yield replace(batch, samples=[self.mixture[index] for index in indices]) if with_samples else batch
                return
            except WorkerDeath as error:
                deaths += 1
                if deaths > MAX_WORKER_DEATHS:
                    raise UserError(
                        f"training.num_workers={self.num_workers}: workers die again and again: {error}; "
                        "training.num_workers=0 reads in the training process"
                    ) from error
                logger.warning("a data-loader worker died (%s): new ones go on where it was", error)

    def _received(self, reading: Reading | Failure) -> Batch:
        if isinstance(reading, Failure):
            raise UserError(reading.message)
        for reason in reading.bad_images:
            if reason not in self._skipped:
                logger.warning("skipped: %s", reason)
            self._skipped[reason] += 1
        return reading.batch


def ready(batch: Batch, image: ImageProcessor, device: torch.device) -> Batch:
    """The batch on `device`, its uint8 images as the model takes them."""
    batch = batch.to(device)
    images_I3HW, sizes_I2 = image(batch.images, device)
    return replace(batch, images=images_I3HW, image_sizes=sizes_I2)


def share(ids: np.ndarray, rank: int, world_size: int, micro_batch_size: int | None) -> list[tuple[np.ndarray, bool]]:
    """This process's part of an update's samples as micro-batches, and of each whether it only fills up.

    Neighbours stay together, since they share images. All processes get as many micro-batches, and their first ones are made of
    neighbours too, as are their second ones, …: so no process has all of the long texts, for which the others would wait.
    """
    together = world_size * (micro_batch_size or math.ceil(len(ids) / world_size))  # samples of all processes' k-th ones
    blocks = [ids[at : at + together] for at in range(0, len(ids), together)]
    pieces = [block[len(block) * rank // world_size : len(block) * (rank + 1) // world_size] for block in blocks]
    return [(piece, False) if len(piece) else (ids[:1], True) for piece in pieces]


def padding_share_of(batch: Batch, image: ImageProcessor) -> float:
    """The share of pixels, in 0…1, that is padding once the images of a batch that was read are resized."""
    sizes = [image.resized(*pixels.shape[-2:]) for pixels in batch.images]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    return 1 - sum(rows * columns for rows, columns in sizes) / (len(sizes) * height * width)
