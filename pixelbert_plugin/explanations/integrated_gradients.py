"""Integrated gradients (Sundararajan et al. 2017) over the images' pixels, by captum.

N images of the text, n points of the path, H W padded height and width.
"""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.explanations.options import IntegratedGradientsConfig
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.types import Batch, ExplanationInput, ExplanationMap


@registry.register_explanation("integrated_gradients")
class IntegratedGradients:
    """Integrated gradients: each pixel's share of what the answer's log-odds rise from an empty image to this one (captum).

    The sum over the three colours; what speaks against the answer is left out, and the rest smoothed (option `blur`). It goes
    through the CNN too, so it has the image's resolution, and no maps of words. It needs the extra `explain`.
    """

    Config = IntegratedGradientsConfig

    def __init__(self, config: IntegratedGradientsConfig):
        self.config = config
        try:
            from captum.attr import IntegratedGradients as Captum
        except ImportError as error:
            raise UserError(
                "explanation 'integrated_gradients' needs the package captum; pip install 'pixelbert_plugin[explain]'"
            ) from error
        self.captum: Any = Captum

    def __call__(self, given: ExplanationInput) -> list[ExplanationMap]:
        images = cast(Tensor, given.batch.images)
        count, height, width = len(images), *images.shape[-2:]

        def score(images_nHW: Tensor) -> Tensor:
            batch = repeated(given, images_nHW.reshape(-1, 3, height, width), len(images_nHW))
            with given.autocast():
                return given.score(given.model(batch))

        with torch.enable_grad():
            attributed = self.captum(score).attribute(
                images.reshape(1, count * 3, height, width),
                baselines=self._baseline(given).reshape(1, count * 3, height, width),
                n_steps=self.config.num_steps,
                internal_batch_size=self.config.images_at_once,
            )
        sums_NHW = attributed.detach().float().reshape(count, 3, height, width).sum(1)
        sizes = cast(Tensor, given.batch.image_sizes).tolist()
        own = [values[: size[0], : size[1]] for values, size in zip(sums_NHW, sizes, strict=True)]
        order = given.batch.image_index[0].tolist()  # of the text's images among the batch's
        return [ExplanationMap(answer=blurred(own[place].clamp(min=0), self.config.blur).cpu()) for place in order]

    def _baseline(self, given: ExplanationInput) -> Tensor:
        """N 3 H W: 0 is the mean colour. Padding stays 0, so that no path leads through it."""
        images = cast(Tensor, given.batch.images)
        found = torch.zeros_like(images)
        if self.config.baseline == "black":
            if given.normalization is None:
                raise UserError("explain: baseline=black: the processor of images does not say how it normalises; use mean")
            mean, std = (torch.tensor(list(values), device=found.device) for values in given.normalization)
            for image, (height, width) in zip(found, cast(Tensor, given.batch.image_sizes).tolist(), strict=True):
                image[:, :height, :width] = (-mean / std)[:, None, None]
        return found


def repeated(given: ExplanationInput, images_I3HW: Tensor, times: int) -> Batch:
    """The input's text `times` times, each with images of its own: I = times · N of them, one text's together."""
    batch, count = given.batch, len(cast(Tensor, given.batch.images))
    texts = torch.arange(times, device=batch.image_index.device)[:, None]
    sizes_I2 = cast(Tensor, batch.image_sizes).repeat(times, 1)
    features = None
    encoder = cast(Model, given.model).frozen_image_encoder
    if encoder is not None:  # the model would take no gradient through it
        features = encoder(images_I3HW, sizes_I2)
    return replace(
        batch,
        sample_ids=list(range(times)),
        input_ids=batch.input_ids.expand(times, -1),
        text_mask=batch.text_mask.expand(times, -1),
        images=images_I3HW,
        image_sizes=sizes_I2,
        features=features,
        image_index=batch.image_index + count * texts,
        image_seeds=batch.image_seeds.repeat(times),
        weights=batch.weights.expand(times),
        targets={name: _all(name, value, batch, times) for name, value in batch.targets.items()},
        samples=batch.samples * times,
    )


def _all(name: str, value: Tensor, batch: Batch, times: int) -> Tensor:
    """A target of every text; places of masked words count through all of them."""
    if name != "mlm_positions":
        return value.repeat(times, *[1] * (value.dim() - 1))
    starts = batch.input_ids.shape[1] * torch.arange(times, device=value.device)
    return (starts[:, None] + value).flatten()


def blurred(values_HW: Tensor, share: float) -> Tensor:
    """Smoothed by a Gaussian, its sigma a share of the longer side, zeros around the image."""
    sigma = share * max(values_HW.shape)
    if sigma <= 0:
        return values_HW
    reach = max(1, round(3 * sigma))
    steps = torch.arange(-reach, reach + 1, device=values_HW.device, dtype=values_HW.dtype)
    kernel = torch.exp(-((steps / sigma) ** 2) / 2)
    kernel = kernel / kernel.sum()
    found = values_HW[None, None]
    found = torch.nn.functional.conv2d(found, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    return torch.nn.functional.conv2d(found, kernel.view(1, 1, 1, -1), padding=(0, reach))[0, 0]
