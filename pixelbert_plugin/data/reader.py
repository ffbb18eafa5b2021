"""In a data-loader worker: a list of sample indices → Batch (uint8 images, token ids, targets)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixelbert_plugin.data.collate import collate
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.image import BadImageError, ImageProcessor
from pixelbert_plugin.processors.text import BertTokenizer
from pixelbert_plugin.seeding import derive
from pixelbert_plugin.types import Batch, Sample

Targets = Callable[[list[Sample]], dict[str, Tensor]]


@dataclass(frozen=True)
class MicroBatch:
    """What a worker is asked for: the samples of one forward."""

    epoch: int
    indices: np.ndarray  # B, into the mixture
    train: bool  # whether to augment


@dataclass(frozen=True)
class Failure:
    """A user's error in a worker, on its way to the main process (an exception would arrive with a traceback)."""

    message: str


class BatchReader(Dataset):
    """Reads, tokenizes, decodes and collates; every draw is f(seed, epoch, image id)."""

    def __init__(self, mixture: Mixture, text: BertTokenizer, image: ImageProcessor, targets: Targets, seed: int):
        self.mixture, self.text, self.image, self.targets, self.seed = mixture, text, image, targets, seed

    def __getitem__(self, micro_batch: MicroBatch) -> Batch | Failure:
        try:
            return self.read(micro_batch)
        except UserError as error:
            return Failure(str(error))

    def read(self, micro_batch: MicroBatch) -> Batch:
        located = [self.mixture.locate(int(index)) for index in micro_batch.indices]
        images: dict[tuple, Tensor] = {}
        seeds: dict[tuple, int] = {}
        bad: dict[tuple, str] = {}
        for dataset, sample in located:
            for image_id, path in zip(sample.image_ids, sample.images, strict=True):
                key = (dataset, image_id)
                if key in seeds:
                    continue
                seeds[key] = derive(self.seed, "image", micro_batch.epoch, dataset, image_id)
                try:
                    image = self.image.decode(Path(path))
                    images[key] = self.image.augment(image, seeds[key]) if micro_batch.train else image
                except BadImageError as error:
                    if self.mixture.on_bad_image[dataset] == "error":
                        raise UserError(
                            f"{error}; needed by sample {sample.sample_id} of {dataset}. Restore the file, or set "
                            f"dataset_config.{dataset}.on_bad_image=skip"
                        ) from error
                    images[key], bad[key] = None, str(error)
        # a grey image stands in for a skipped one, so that shapes hold; its pairs weigh nothing
        size = next((image.shape for image in images.values() if image is not None), (3, 64, 64))
        images = {key: torch.full(size, 128, dtype=torch.uint8) if image is None else image for key, image in images.items()}
        encoded = [self.text(sample.text) for _, sample in located]
        keys = [[(dataset, image_id) for image_id in sample.image_ids] for dataset, sample in located]
        batch = collate(
            [sample for _, sample in located],
            [ids for ids, _ in encoded],
            keys,
            images,
            seeds,
            weights=[0.0 if any(key in bad for key in row) else 1.0 for row in keys],
            pad_token_id=self.text.pad_token_id,
            num_truncated=sum(cut for _, cut in encoded),
        )
        batch.targets = self.targets(batch.samples)
        batch.bad_images = list(bad.values())
        return batch
