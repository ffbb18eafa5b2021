"""Pixel-BERT (Huang et al. 2020): `[CLS] w1 … wn [SEP] v1 … vk` through one transformer.

B texts, N images per text, Q = B·N sequences, I images, L tokens, P pixels of the grid, K pixels kept, D hidden size.
in: Batch (input_ids_BL, text_mask_BL, images_I3HW, image_sizes_I2, image_index_BN); out: ModelOutput.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.models.heads import HEADS
from pixelbert_plugin.models.pixel_sampling import sample_pixels
from pixelbert_plugin.schema import Component, component, require
from pixelbert_plugin.types import Batch, ModelOutput, PixelFeatures


@dataclass(kw_only=True)
class PixelBertConfig:
    image_encoder: Component = component("encoder", "resnet50")  # image → pixel features
    text_encoder: Component = component("encoder", "bert")  # text embeddings and the shared transformer
    num_sampled_pixels: int | None = None  # pixels drawn per image in training; paper: 100 in pre-training. None: all
    position_embedding: Literal["none", "2d"] = "none"  # 2d: learned row + column vectors (ClipBERT); none: the paper
    max_grid_size: int = 64  # rows and columns that position_embedding=2d has vectors for
    pixel_layer_norm: bool = False  # layer norm on pixels before the transformer; off as in the paper
    pixel_dropout: float = 0.0  # probability, on pixels before the transformer; the paper names none

    def check(self) -> None:
        require(self, "num_sampled_pixels", "max_grid_size", low=1)
        require(self, "pixel_dropout", low=0, high=1)


@registry.register_model("pixelbert")
class PixelBert(nn.Module):
    """Pixel-BERT: a CNN's pixels and a text's words through one transformer."""

    Config = PixelBertConfig

    def __init__(self, config: PixelBertConfig, vocab_size: int, heads: dict[str, int], pad_token_id: int = 0):
        """`heads`: the number of outputs of each head the task needs."""
        super().__init__()
        self.config = config
        path = "model_config.pixelbert"
        self.image_encoder = registry.build_component("encoder", config.image_encoder, f"{path}.image_encoder.params")
        self.text_encoder = registry.build_component(
            "encoder",
            config.text_encoder,
            f"{path}.text_encoder.params",
            vocab_size=vocab_size,
            pad_token_id=pad_token_id,
        )
        hidden = self.text_encoder.hidden_size
        std = self.text_encoder.initializer_range
        self.projection = nn.Linear(self.image_encoder.out_channels, hidden)
        self.pixel_embedding = nn.Parameter(torch.zeros(hidden).normal_(std=std))  # the paper's s_v
        self.pixel_norm = nn.LayerNorm(hidden) if config.pixel_layer_norm else nn.Identity()
        self.pixel_dropout = nn.Dropout(config.pixel_dropout)
        if config.position_embedding == "2d":
            self.row_embedding = nn.Parameter(torch.zeros(config.max_grid_size, hidden).normal_(std=std))
            self.column_embedding = nn.Parameter(torch.zeros(config.max_grid_size, hidden).normal_(std=std))
        widths = {"image_answers": self.image_encoder.out_channels}
        self.heads = nn.ModuleDict({name: HEADS[name](widths.get(name, hidden), size) for name, size in heads.items()})
        for module in (self.projection, *self.heads.modules()):
            if isinstance(module, nn.Linear):  # as BERT initialises its own
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)

    def forward(self, batch: Batch, return_attentions: bool = False) -> ModelOutput:
        features = self.image_encoder(batch.images, batch.image_sizes)
        pixels_IKD, mask_IK, positions_IK = self._embed_pixels(features, batch.image_seeds)

        index_Q = batch.image_index.flatten()
        texts_per_sequence = batch.image_index.shape[1]
        words_QLD = self.text_encoder.embed(batch.input_ids).repeat_interleave(texts_per_sequence, dim=0)
        text_mask_QL = batch.text_mask.repeat_interleave(texts_per_sequence, dim=0)

        # index_select: the gradient of plain indexing is summed in an order that changes from run to run, even on a CPU
        pixels_QKD = pixels_IKD.index_select(0, index_Q).to(words_QLD.dtype)
        hidden_QSD = torch.cat([words_QLD, pixels_QKD], dim=1)
        mask_QS = torch.cat([text_mask_QL, mask_IK[index_Q]], dim=1)
        hidden_QSD, attentions = self.text_encoder(hidden_QSD, mask_QS, return_attentions)

        words = batch.input_ids.shape[1]
        return ModelOutput(
            logits=self._apply_heads(hidden_QSD[:, :words], features, batch),
            text=hidden_QSD[:, :words],
            pixels=hidden_QSD[:, words:],
            pixel_mask=mask_QS[:, words:],
            pixel_positions=positions_IK[index_Q],
            grid=features.grid,
            attentions=attentions,
        )

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Named parameters by optimizer: the paper trains the CNN by SGD and all else by AdamW."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"cnn": [], "transformer": []}
        for name, parameter in self.named_parameters():
            groups["cnn" if name.startswith("image_encoder.") else "transformer"].append((name, parameter))
        return groups

    def _embed_pixels(self, features: PixelFeatures, seeds_I: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample (in training, where asked for), project, add s_v. Returns pixels_IKD, mask_IK, positions_IK."""
        pixels_IKC, mask_IK = features.pixels, features.mask
        positions_IK = torch.arange(mask_IK.shape[1], device=mask_IK.device).expand_as(mask_IK)
        if self.training and self.config.num_sampled_pixels is not None:
            positions_IK, mask_IK = sample_pixels(mask_IK, seeds_I, self.config.num_sampled_pixels)
            pixels_IKC = pixels_IKC.gather(1, positions_IK[..., None].expand(-1, -1, pixels_IKC.shape[-1]))
        pixels_IKD = self.projection(pixels_IKC) + self.pixel_embedding
        if self.config.position_embedding == "2d":
            pixels_IKD = pixels_IKD + self._position_embeddings(positions_IK, features.grid)
        return self.pixel_dropout(self.pixel_norm(pixels_IKD)), mask_IK, positions_IK

    def _position_embeddings(self, positions_IK: Tensor, grid: tuple[int, int]) -> Tensor:
        if max(grid) > self.config.max_grid_size:
            raise UserError(
                f"model_config.pixelbert.max_grid_size={self.config.max_grid_size}: an image gives a grid of "
                f"{grid[0]} × {grid[1]} pixels; raise it or lower processors.image.params.long_edge"
            )
        columns = grid[1]
        return self.row_embedding[positions_IK // columns] + self.column_embedding[positions_IK % columns]

    def _apply_heads(self, words_QLD: Tensor, features: PixelFeatures, batch: Batch) -> dict[str, Tensor]:
        """Each head's logits; the masked-language head only at the words that `targets["mlm"]` asks for (≠ -100)."""
        cls_QD = words_QLD[:, 0]
        logits = {}
        for name, head in self.heads.items():
            if name == "mlm":
                logits[name] = head(words_QLD[batch.targets["mlm"] != -100], self.text_encoder.word_embeddings)
            elif name == "image_answers":
                logits[name] = head(features.pixels, features.mask)
            else:
                logits[name] = head(cls_QD)
        return logits
