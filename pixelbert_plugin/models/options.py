"""The options of the models here, by themselves, so that they are read and checked without torch."""

from dataclasses import dataclass
from typing import Literal

from pixelbert_plugin.registry.schema import Component, component, require


@dataclass(kw_only=True)
class PixelBertConfig:
    image_encoder: Component = component("encoder", "resnet50")  # image → pixel features
    text_encoder: Component = component("encoder", "bert")  # text embeddings and the shared transformer
    num_sampled_pixels: int | None = None  # pixels drawn per image in training; paper: 100 in pre-training. None: all
    position_embedding: Literal["none", "2d"] = "none"  # 2d: learned row + column vectors (ClipBERT); none: the paper
    max_grid_size: int = 64  # rows and columns that position_embedding=2d has vectors for
    projection: Literal["linear", "conv3x3"] = "linear"  # conv3x3: ClipBERT's, a convolution with pooling; linear: the paper
    pooler: bool = False  # BERT's tanh layer on [CLS] under the heads (ClipBERT); the paper shows none
    pixel_layer_norm: bool = False  # layer norm on pixels before the transformer; the paper names none
    pixel_layer_norm_eps: float = 1e-5  # torch's; ClipBERT: 1e-12
    pixel_dropout: float = 0.0  # probability, on pixels before the transformer; the paper names none
    freeze_image_encoder: bool = False  # leave the CNN as it is (paper: for retrieval), its batch norms' statistics too

    def check(self) -> None:
        require(self, "num_sampled_pixels", "max_grid_size", low=1)
        require(self, "pixel_dropout", low=0, high=1)
        require(self, "pixel_layer_norm_eps", above=0)
