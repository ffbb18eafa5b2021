"""In a data-loader worker: a list of sample indices → Batch (uint8 images, token ids, targets)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixelbert_plugin.data.collate import ImageKey, collate
from pixelbert_plugin.data.feature_store import FeatureStore
from pixelbert_plugin.data.images import BadImageError
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.negatives import Negatives
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.processors.text import WordPieceTokenizer
from pixelbert_plugin.seeding import derive
from pixelbert_plugin.types import Batch, Prepare, Sample


@dataclass(frozen=True)
class MicroBatch:
    """What a worker is asked for: the samples of one forward."""

    epoch: int
    indices: np.ndarray  # B, into the mixture; plus M for each time that the sample stood in this epoch before
    train: bool  # whether to augment
    with_texts: bool = True  # else images alone are read
    is_filler: bool = False  # its samples weigh nothing: another process computes them
    leaders: np.ndarray | None = None  # B, of each sample's images in the whole update the first one; None in evaluation


@dataclass(frozen=True)
class Reading:
    """What a worker has read, on its way to the main process."""

    batch: Batch  # without samples: the main process has them
    bad_images: list[str]  # why images of it were skipped, one line each

    def pin_memory(self) -> "Reading":
        """Called by torch's DataLoader, as `Batch.pin_memory`."""
        return replace(self, batch=self.batch.pin_memory())


@dataclass(frozen=True)
class Failure:
    """A user's error in a worker, on its way to the main process (an exception would arrive with a traceback)."""

    message: str


@dataclass
class Images:
    """The images of a batch, each read once. Keys are what its augmentation and pixel sampling are drawn for: (data set, image
    id), and in training the first sample of its group in the update, so that an image is drawn for anew in each update while
    all micro-batches and processes that share the update draw alike."""

    pixels: dict[ImageKey, Tensor | None] = field(default_factory=dict)  # 3 h w uint8; None where unreadable
    seeds: dict[ImageKey, int] = field(default_factory=dict)
    bad: dict[ImageKey, str] = field(default_factory=dict)  # why an image was skipped
    names: dict[ImageKey, str | None] = field(default_factory=dict)  # what its features are kept by; None where unreadable


class BatchReader(Dataset[Reading | Failure]):
    """Reads, tokenizes, decodes and collates; every draw is f(seed, epoch, what it is for), see seeding.py."""

    def __init__(
        self,
        mixture: Mixture,
        text: WordPieceTokenizer,
        image: ImageProcessor,
        prepare: Prepare,
        seed: int,
        negatives: Negatives | None = None,
    ):
        self.mixture, self.text, self.image, self.prepare, self.seed = mixture, text, image, prepare, seed
        self.negatives = negatives
        self.store: FeatureStore | None = None  # where images need not be read, whose features it has
        self.note: Callable[[Path | None], None] | None = None  # told which image is being read, should the process die of it

    def __getitem__(self, micro_batch: MicroBatch) -> Reading | Failure:
        try:
            return self.read(micro_batch)
        except UserError as error:
            return Failure(str(error))

    def read(self, micro_batch: MicroBatch) -> Reading:
        samples, seeds, encoded, keys, images = [], [], [], [], Images()
        leaders = micro_batch.indices if micro_batch.leaders is None else micro_batch.leaders
        for number, leader in zip(micro_batch.indices.tolist(), leaders.tolist(), strict=True):
            sample, drawn_for = self._sample(number)
            seed = derive(self.seed, "text", micro_batch.epoch, *drawn_for)
            samples.append(sample)
            seeds.append(seed)
            if micro_batch.with_texts:
                encoded += [self.text(text)[0] for text in self._texts(number, sample, seed)]
            leader_drawn_for = drawn_for if leader == number else self._sample(leader)[1]
            group = () if micro_batch.leaders is None else leader_drawn_for[1:]
            keys.append([(drawn_for[0], image_id, *group) for image_id in sample.image_ids])
            self._read_images(drawn_for[0], sample, keys[-1], micro_batch, images)
        if self.note is not None:
            self.note(None)
        batch = collate(
            samples,
            encoded,
            keys,
            _with_stand_ins(images.pixels, is_alike=self.store is None),
            images.seeds,
            weights=[0.0 if micro_batch.is_filler or any(key in images.bad for key in row) else 1.0 for row in keys],
            pad_token_id=self.text.pad_token_id,
        )
        if micro_batch.with_texts:
            self.prepare(batch, seeds)
        bad_images = [] if micro_batch.is_filler else list(dict.fromkeys(images.bad.values()))
        return Reading(replace(batch, samples=[], feature_names=list(images.names.values())), bad_images)

    def _sample(self, number: int) -> tuple[Sample, tuple[str, int | str, int]]:
        """A sample, and what makes its draws its own: data set, sample id and how often it stood in the epoch before."""
        occurrence, index = divmod(number, len(self.mixture))
        name, sample = self.mixture.locate(index)
        return sample, (name, sample.sample_id, occurrence)

    def _texts(self, number: int, sample: Sample, seed: int) -> list[str]:
        """The sample's own text and its negatives'."""
        if self.negatives is None:
            return [sample.text]
        others = self.negatives.draw(number % len(self.mixture), derive(seed, "negatives"))
        return [sample.text, *map(self.mixture.text, others)]

    def _read_images(self, name: str, sample: Sample, keys: list[ImageKey], micro_batch: MicroBatch, images: Images) -> None:
        for key, path in zip(keys, sample.images, strict=True):
            if key in images.seeds:
                continue
            images.seeds[key] = derive(self.seed, "image", micro_batch.epoch, *key)
            if self.note is not None:
                self.note(path)
            if self.store is not None:
                kept = images.names[key] = self.store.name(Path(path))
                if kept is not None and (features := self.store.find(kept)) is not None:
                    images.pixels[key] = features
                    continue
            try:
                image = self.image.decode(Path(path))
                images.pixels[key] = self.image.augment(image, images.seeds[key]) if micro_batch.train else image
            except BadImageError as error:
                if self.mixture.on_bad_image[name] == "error":
                    raise UserError(
                        f"{error}; needed by sample {sample.sample_id} of {name}. Restore the file, or set "
                        f"dataset_config.{name}.on_bad_image=skip"
                    ) from error
                images.pixels[key], images.bad[key] = None, str(error)
                if self.store is not None:
                    images.names[key] = None


def _with_stand_ins(images: dict[ImageKey, Tensor | None], is_alike: bool) -> dict[ImageKey, Tensor]:
    """A grey image for each that is skipped, so that shapes hold; its samples weigh nothing. Of another image's size where it
    `is_alike`; else, where others may have come as features, always of one size."""
    size = next((image.shape for image in images.values() if image is not None and is_alike), (3, 64, 64))
    return {key: torch.full(size, 128, dtype=torch.uint8) if image is None else image for key, image in images.items()}
