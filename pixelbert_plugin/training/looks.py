"""What the model looks at, for trackers: of fixed samples of a validation, and which pixels an update had drawn.

Nothing here changes a training's numbers: no gradient, no batch norm's statistics, no draw of torch's generators.
R C the rows and columns of the CNN's grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_plugin.data.images import BadImageError, upright_size
from pixelbert_plugin.data.light import Centres
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.explanations.options import RolloutConfig
from pixelbert_plugin.explanations.rollout import rollout
from pixelbert_plugin.explanations.sequence import centres, on_pixels
from pixelbert_plugin.interfaces import LearnedTask, Model
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.types import Batch, ExplanationMap, ModelOutput, Sample


@dataclass(frozen=True, eq=False)
class Look:
    """Where the model looks on a sample's image, or on each of its images."""

    sample: Sample
    told: str  # its text and what was predicted
    maps: list[ExplanationMap]  # on the CPU, of each image
    widths: list[int] = field(default_factory=list)  # pixels of each image, side by side


@dataclass(frozen=True, eq=False)
class Drawn:
    """Which pixels of the CNN's grid an update had drawn of an image."""

    picture: Tensor  # 3 h w uint8
    is_drawn_RC: Tensor  # bool
    centres: Centres | None  # where rows and columns look


def explain(model: nn.Module, batch: Batch) -> tuple[ModelOutput, list[list[ExplanationMap]]]:
    """The output of the model, and for each sample and image of a batch what explains it: rollout at [CLS], which the
    heads read. Of the methods without gradient it finds best what is asked about (docs/explanations.md)."""
    output: ModelOutput = model(batch, return_attentions=True)
    if not output.attentions:
        return output, [[] for _ in range(len(batch))]
    length = batch.input_ids.shape[1]
    rolled_QSS = rollout([weights_QhSS.float().mean(1) for weights_QhSS in output.attentions], RolloutConfig().residual)
    images = batch.image_index.shape[1]
    per_sample = len(batch.input_ids) // len(batch) * images  # its own text first, then its negatives
    image_of_Q, found = batch.image_index.flatten().tolist(), []
    for sample in range(len(batch)):
        of_images = []
        for place in range(images):
            row = sample * per_sample + place
            at = (output.pixel_positions[row], output.pixel_mask[row], output.grid[1])
            weights_RC = on_pixels(rolled_QSS[row], [[0]], length, *at)[0].cpu()
            at_centres = _centres(model, batch, image_of_Q[row], tuple(weights_RC.shape))
            of_images.append(ExplanationMap(answer=weights_RC, centres=at_centres))
        found.append(of_images)
    return output, found


@dataclass
class Looker:
    """Looks at a model while it trains; in one process, which is not of a sharded model."""

    model: nn.Module
    task: LearnedTask
    precision: Precision
    loaders: dict[str, Loader]  # of validation, by "val/dataset"
    count: int  # samples of each

    def looks(self, name: str) -> list[Look]:
        """Of the same samples of different images, evenly over the split, at every evaluation; [] where the model gives no
        attention."""
        model: Model = self.model  # type: ignore[assignment]
        loader = self.loaders[name]
        if not model.gives_attentions or not len(loader.mixture):
            return []
        first_I = np.unique(loader.mixture.images_M, return_index=True)[1]
        chosen = min(self.count, len(first_I))
        numbers = np.array([first_I[index * len(first_I) // chosen] for index in range(chosen)])
        found: list[Look] = []
        with self._unchanged(is_training=False):
            for batch in replace(loader, num_workers=0, rank=0, world_size=1).read([numbers], with_samples=True):
                output, maps = explain(self.model, batch)
                for sample, told, each in zip(batch.samples, self._told(output, batch), maps, strict=True):
                    if each:
                        found.append(Look(sample, told, each, _widths(sample)))
        return found

    def sampled(self, loader: Loader, batch: Batch) -> list[Drawn]:
        """Of the first images of an update's micro-batch as it was read: which pixels of the CNN's grid the update had drawn.
        Those of which all are taken are left out; there is none where the images' features are kept.

        Draws are functions of the batch's seeds; of the model itself alone is said that it trains, not of its parts, so that
        no statistics change.
        """
        if loader.features is not None:
            return []
        with self._unchanged(is_training=True):
            made = loader.ready(batch)
            output: ModelOutput = self.model(made)
        shape = output.grid
        if output.pixel_mask.shape[1] == shape[0] * shape[1]:
            return []
        image_of_Q = batch.image_index.flatten().tolist()
        found = []
        for image in range(min(self.count, len(batch.images))):
            row = image_of_Q.index(image)
            if bool(output.pixel_mask[row].all()):  # else it has fewer pixels than are drawn
                drawn_P = torch.zeros(shape[0] * shape[1], dtype=torch.bool)
                drawn_P[output.pixel_positions[row].cpu()] = True
                at_centres = _centres(self.model, made, image, shape)
                found.append(Drawn(batch.images[image].cpu(), *_own(drawn_P.view(shape), at_centres)))
        return found

    def _told(self, output: ModelOutput, batch: Batch) -> list[str]:
        if self.task.scores_all_pairs:
            return [sample.text for sample in batch.samples]
        results = self.task.predict(output, batch)  # type: ignore[attr-defined]  # a Task's
        return [f"{each.sample.text}\ntrue: {each.truth}\npredicted: {each.prediction}" for each in results]

    @contextmanager
    def _unchanged(self, is_training: bool) -> Iterator[None]:
        """The model as it is told, and afterwards as it was, as are torch's generators."""
        modes = {module: module.training for module in self.model.modules()}
        devices = [self.precision.device] if self.precision.device.type == "cuda" else []
        try:
            self.model.eval()
            self.model.training = is_training  # its own alone
            with torch.no_grad(), torch.random.fork_rng(devices=devices), self.precision.autocast():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def _centres(model: nn.Module, batch: Batch, image: int, shape: tuple[int, ...]) -> Centres | None:
    """Where rows and columns of the CNN's grid look on an image of the batch; None where nothing is known of it, or features
    stand in its place, which do not tell its size."""
    if batch.features is not None:
        return None
    size = list(batch.images[image].shape[-2:]) if batch.image_sizes is None else batch.image_sizes[image].tolist()
    return centres(cast(Model, model).grid_centres, shape, size)


def _own(drawn_RC: Tensor, at_centres: Centres | None) -> tuple[Tensor, Centres | None]:
    """The part of a padded batch's grid that looks at the image itself, and where it looks."""
    if at_centres is None:
        return drawn_RC, None
    down, across = ([place for place in side if place < 1] for side in at_centres)
    return drawn_RC[: len(down), : len(across)], (down, across)


def _widths(sample: Sample) -> list[int]:
    """Of the images as they are shown, side by side."""
    try:
        return [upright_size(Path(path))[1] for path in sample.images]
    except BadImageError:
        return []
