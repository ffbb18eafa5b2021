"""The options of the encoders here, by themselves, so that they are read and checked without torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pixelbert_plugin.registry.schema import FilePath, require

Format = Literal["auto", "torchvision", "msra", "caffe2", "caffe2_std"]
ARCHITECTURE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


@dataclass(kw_only=True)
class ResNetConfig:
    weights: FilePath | None = None  # none: random; a torchvision enum name as IMAGENET1K_V1; or a file (.pth, .safetensors)
    weights_format: Format = "auto"  # conventions of a file of weights (docs/weights.md); auto: of the source that it shows
    stride_in_1x1: bool | None = None  # whether a stage strides in its first 1×1 convolution, not the 3×3. None: as `weights`
    norm: Literal["trainable", "frozen", "sync"] = "trainable"  # batch norms: trained, fixed, or trained over all processes
    max_pool: bool = True  # 2×2 max pooling after the last stage: total stride 64 (paper); off: 32
    num_stages: int = 4  # of the ResNet's four, from the first: each one less halves the stride, and the CNN is far smaller

    def check(self) -> None:
        require(self, "num_stages", low=1, high=4)


@dataclass(kw_only=True)
class TimmConfig:
    model: str = "resnet50"  # timm's name (timm.list_models()), of a model with feature maps
    weights: FilePath | None = None  # none: random; pretrained: timm's own, from the hub; or a file (.pth, .safetensors)
    stage: int = -1  # which of the model's feature maps; -1: the last
    options: dict[str, Any] = field(default_factory=dict)  # more for timm.create_model, as dynamic_img_size: true for a ViT
    norm: Literal["trainable", "frozen"] = "frozen"  # batch norms: trained on groups of images of one size, or fixed


@dataclass(kw_only=True)
class BertTextEncoderConfig:
    weights: FilePath | None = None  # a checkpoint of BERT's architecture: hub name (bert-base-uncased) or folder. None: random
    hidden_size: int | None = None  # D. None: that of weights, else 768 (BERT-base, paper)
    num_hidden_layers: int | None = None  # layers. None: that of weights, else 12
    num_attention_heads: int | None = None  # heads. None: that of weights, else 12
    intermediate_size: int | None = None  # width of the feed-forward part. None: that of weights, else 3072
    max_position_embeddings: int | None = None  # longest text in tokens. None: that of weights, else 512
    type_vocab_size: int | None = None  # token types. None: that of weights, else 2; only type 0 is used
    hidden_act: str | None = None  # activation by transformers' name. None: that of weights, else gelu
    layer_norm_eps: float | None = None  # None: that of weights, else 1e-12
    dropout: float = 0.1  # probability, after embeddings and sub-layers (BERT's)
    attention_dropout: float = 0.1  # probability, on attention weights (BERT's)
    initializer_range: float = 0.02  # std of random weights; BERT's suits D = 768, a narrow D learns with about D^-0.5
    layer_norm: Literal["torch", "apex"] = "torch"  # apex: its FusedLayerNorm where that is built, else torch's, with a warning

    def check(self) -> None:
        require(self, *ARCHITECTURE, "max_position_embeddings", "type_vocab_size", low=1)
        require(self, "dropout", "attention_dropout", low=0, high=1)
        require(self, "initializer_range", "layer_norm_eps", above=0)
