"""`pixelbert-data calibrate`: statistics for a published CNN's norms that come without, measured on a data set's images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import choose_device
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.images import BadImageError
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.run_data import build_builders
from pixelbert_plugin.data.vocabularies import build_processor
from pixelbert_plugin.encoders import calibration
from pixelbert_plugin.encoders.cnn_formats import CnnWeights
from pixelbert_plugin.encoders.resnet import ResNetEncoder, read_weights
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.registry.schema import Component, ConfigError
from pixelbert_plugin.system.progress import NoProgress, TimeLeft


@dataclass(kw_only=True)
class CalibrationConfig:
    out: str | None = None  # the .safetensors to write
    images: int = 300  # how many images of the training split, evenly spread over it

    def target(self) -> Path:
        """Raises ConfigError."""
        if self.out is None or not self.out.endswith(".safetensors"):
            raise ConfigError("out", "must be set, to a file that ends in .safetensors, such as out=weights/R-50.safetensors")
        if self.images < 1:
            raise ConfigError("images", f"{self.images}: at least 1 image is measured")
        return Path(self.out).expanduser()


def calibrate(config: RunConfig, own: CalibrationConfig) -> str:
    """Write the weights of the configuration's image encoder with statistics. Returns what was done, in one line.

    Raises UserError where the encoder has no such weights, or an image cannot be read.
    """
    target, console = own.target(), Console(stderr=True)
    with configuration.naming_sources(config.sources):
        encoder, found = _fixed(config)
        device = choose_device(config.training)
        processor = build_processor(config.processors, "image")
        builders = build_builders(config.datasets, config.dataset_config, config.env)
        parts = Mixture.build(builders, "train").parts.values()
        paths = [path for samples in parts for path in samples.image_paths()]
        count = min(own.images, len(paths))
        chosen = [paths[number * len(paths) // count] for number in range(count)]
        with TimeLeft(console, f"measuring {len(chosen):,} images", has_bar=True) as progress:
            progress.begin(len(chosen))
            images = _read(chosen, processor, device, progress)
            norms = calibration.measured_norms(encoder.to(device).eval(), images)
    with writing(target, "out"):
        calibration.write(target, found, norms, str(encoder.weights_format))
    return (
        f"{target}: {len(norms) // 4} norms with the statistics of {len(chosen):,} images, conventions of "
        f"{encoder.weights_format}; train it with params.weights={target} and params.norm=trainable"
    )


def _fixed(config: RunConfig) -> tuple[ResNetEncoder, CnnWeights]:
    """The image encoder, its norms fixed, and its weights as their file has them. Raises ConfigError for what needs none."""
    key = f"model_config.{config.model}.image_encoder"
    reference: Any = getattr(config.model_config.get(config.model), "image_encoder", None)
    if not isinstance(reference, Component):
        raise ConfigError(f"model_config.{config.model}", "has no image_encoder whose norms could be measured")
    made = registry.get("encoder", reference.type, f"{key}.type")
    if not (isinstance(made, type) and issubclass(made, ResNetEncoder)):
        raise ConfigError(f"{key}.type", f"{reference.type!r} is no ResNet of this package, whose files alone lack statistics")
    weights = reference.params.weights
    if weights is None or not Path(weights).is_file():
        raise ConfigError(f"{key}.params.weights", f"{weights!r} is no file; name the one whose norms are without statistics")
    found = read_weights(Path(weights))
    if not found.is_affine:
        raise ConfigError(f"{key}.params.weights", f"{weights!r} has statistics already; its norms can be trained as they are")
    params = replace(reference.params, norm="frozen")
    return registry.build("encoder", reference.type, params, f"{key}.params"), found


def _read(paths: Sequence[Path], processor: Any, device: torch.device, progress: NoProgress) -> Iterator[Tensor]:
    for path in paths:
        try:
            yield processor([processor.decode(path)], device)[0]
        except BadImageError as error:
            raise UserError(f"{error}; pixelbert-data check images=all lists all that cannot be read") from error
        progress.advance(1)
