"""A frozen image encoder's features: computed once for an image, kept on the disk, and given to the model in its place.

Features are those of the image in a forward of its own, whatever batch it stands in: a function of weights and image alone. So
a run computes the same, to the last bit, whether they were kept before, are found damaged, or do not fit on the disk.
I images, P = rows · columns pixels of the largest grid, C channels.
"""

import copy
import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.data.feature_store import FeatureStore
from pixelbert_plugin.data.images import BadImageError
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import ImageProcessor, Precision
from pixelbert_plugin.registry import returned
from pixelbert_plugin.types import Batch, PixelFeatures

logger = logging.getLogger(__name__)
FORMAT = 1  # of the features; raise it when an encoder or a processor of this package computes otherwise from the same options
ASKED = 20  # images of which the first readable one tells how much features take
OPTION = "training.cache_features"


class ImageFeatures:
    """What loaders ask for the features of their batches' images."""

    def __init__(
        self,
        encoder: nn.Module,
        options: Any,
        processor: ImageProcessor,
        precision: Precision,
        device: torch.device,
        folder: Path,
        max_gb: float,
        writers: int = 1,
    ):
        """`encoder`: a model's `frozen_image_encoder`, whose weights may be loaded later; `options`: those that build it. The
        files lie below `folder`; `writers`: processes that write there for this run."""
        self.encoder, self.options, self.processor = encoder.eval(), options, processor
        self.precision, self.device = precision, device
        self.folder, self.max_bytes, self.writers = folder, int(max_gb * 1e9), writers
        self._store: FeatureStore | None = None

    def set_apart(self) -> None:
        """Compute with a copy of the encoder from here on: before FSDP shards the model, whose forward passes all processes
        must then do together, where each lacks the features of other images."""
        self.encoder = copy.deepcopy(self.encoder).eval()

    def opened(self) -> FeatureStore:
        """The store for the weights as they are now; called when a pass over the data begins."""
        weights = self._weights()
        if self._store is None or self._store.weights != weights:
            self._store = FeatureStore(self.folder, weights, self.max_bytes, self.writers)
        return self._store

    def ready(self, batch: Batch) -> Batch:
        """The batch on the device with `features` of its images, which are as workers give them: uint8, or features from the
        store."""
        found = [
            self._of(image, name) if image.dtype == torch.uint8 else image
            for image, name in zip(batch.images, batch.feature_names, strict=True)
        ]
        batch = replace(batch, images=[]).to(self.device)
        return replace(batch, features=padded([each.to(self.device, non_blocking=True) for each in found]))

    def estimate(self, images: Sequence[Path]) -> str | None:
        """What the first readable image lets expect of all, in a line; a warning where they do not fit. None: no image."""
        store = self.opened()
        size = next(filter(None, (self._bytes(store, image) for image in images[:ASKED])), None)
        if size is None:
            return None
        there, room = sum(map(store.holds, images)), store.room()
        place = store.folder / store.weights
        told = f"features of {len(images):,} images, about {len(images) * size / 1e9:.2g} GB: {there:,} are in {place}"
        if (len(images) - there) * size <= room:
            return told
        store.is_full_told = True
        logger.warning(
            "%s, which has room for %.2g GB more: the others are computed each time (env.max_features_gb)", told, room / 1e9
        )
        return None

    def _bytes(self, store: FeatureStore, image: Path) -> int | None:
        """How many bytes an image's features have; None where it cannot be read."""
        name = store.name(image)
        kept = None if name is None else store.find(name)
        try:
            return (self.compute(self.processor.decode(image)) if kept is None else kept).nbytes
        except BadImageError:
            return None

    def _of(self, image: Tensor, name: str | None) -> Tensor:
        """Rows columns C of an image that a worker did not find features of: another process may have kept them since."""
        store = self._store or self.opened()
        if name is None:
            return self.compute(image)
        try:
            return store.read(name)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            logger.warning("%s; these features are computed again", error)
        features = self.compute(image)
        store.write(name, features)
        return features

    @torch.no_grad()
    def compute(self, image_3hw: Tensor) -> Tensor:
        """Rows columns C of an image (uint8) in a forward of its own. Raises UserError for an encoder that pads it."""
        encoder: Any = self.encoder  # it has what interfaces.ImageEncoder says
        images_I3HW, sizes_I2 = self.processor([image_3hw.to(self.device)], self.device)
        if next((parameter.dtype for parameter in encoder.parameters()), None) == torch.float16:
            images_I3HW = images_I3HW.half()  # Apex casts what the whole model is called with
        with self.precision.autocast():
            features = encoder(images_I3HW, sizes_I2)
        returned.pixel_features(encoder, features, 1, encoder.out_channels)
        if not features.mask.all():
            raise UserError(
                f"{OPTION}=true: {type(encoder).__name__} ({registry.location(type(encoder))}) has pixels of its grid that are "
                f"no part of an image, also where the image is alone; its features cannot be kept: set {OPTION}=false"
            )
        return features.pixels[0].unflatten(0, features.grid)

    def _weights(self) -> str:
        """A digest of all that features depend on beside the image: as they are to be the same to the last bit, also device,
        threads and the packages that decode and compute."""
        encoder: Any = self.encoder
        is_cuda = self.device.type == "cuda"
        cpu = (torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
        machine = torch.cuda.get_device_name(self.device) if is_cuda else cpu
        processor = (type(self.processor).__qualname__, self.processor.config, self.processor.state_dict())
        described = (type(encoder).__qualname__, encoder.portable() or self.options, processor, self.precision.description)
        packages = [version(name) for name in ("torch", "torchvision", "pillow")]
        digest = hashlib.blake2b(repr((FORMAT, packages, machine, described)).encode(), digest_size=16)
        for name, value in chain(encoder.named_parameters(), encoder.named_buffers()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def padded(features: Sequence[Tensor]) -> PixelFeatures:
    """Images of their own grids (rows columns C) as a batch, zeros below and right of the smaller ones."""
    rows, columns = (max(each.shape[axis] for each in features) for axis in (0, 1))
    first = features[0]
    pixels_IRCD = first.new_zeros(len(features), rows, columns, first.shape[-1])
    mask_IRC = torch.zeros(len(features), rows, columns, dtype=torch.bool, device=first.device)
    for place, mask, each in zip(pixels_IRCD, mask_IRC, features, strict=True):
        place[: each.shape[0], : each.shape[1]] = each
        mask[: each.shape[0], : each.shape[1]] = True
    return PixelFeatures(pixels=pixels_IRCD.flatten(1, 2), mask=mask_IRC.flatten(1), grid=(rows, columns))


def padding_share(features: PixelFeatures) -> float:
    """The share of the grids' pixels that is padding, in 0…1."""
    return 1 - int(features.mask.sum()) / math.prod(features.mask.shape)
