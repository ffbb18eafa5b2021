"""Pixel-BERT (Huang et al. 2020): `[CLS] w1 … wn [SEP] v1 … vk` through one transformer.

R texts, N images per text, Q = R·N sequences, I images, L tokens, J of them read by heads, P pixels of the grid, K pixels kept,
D hidden size.
in: Batch (input_ids_RL, text_mask_RL, images_I3HW, image_sizes_I2, image_index_RN); out: ModelOutput.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import Normalization
from pixelbert_plugin.models.convolutional_projection import ConvolutionalProjection
from pixelbert_plugin.models.heads import HEADS, AnswerHead
from pixelbert_plugin.models.options import PixelBertConfig
from pixelbert_plugin.models.pixel_sampling import sample_pixels
from pixelbert_plugin.registry import returned
from pixelbert_plugin.registry.portable import portable_component
from pixelbert_plugin.types import Batch, CompileUnit, ImageMemory, ModelOutput, PixelFeatures

logger = logging.getLogger(__name__)
Choose: TypeAlias = Callable[[dict[str, Tensor], Batch], Tensor]  # logits of all rows → those that send gradient


@registry.register_model("pixelbert")
class PixelBert(nn.Module):
    """Pixel-BERT: a CNN's pixels and a text's words through one transformer."""

    Config = PixelBertConfig
    takes_choose = True
    gives_attentions = True

    def __init__(self, config: PixelBertConfig, vocab_size: int, heads: dict[str, int], pad_token_id: int = 0):
        """`heads`: the number of outputs of each head the task needs."""
        super().__init__()
        self.config = config
        self.image_encoder = registry.build_component(
            "encoder", config.image_encoder, registry.key_of(config, "image_encoder.params")
        )
        self.text_encoder = registry.build_component(
            "encoder",
            config.text_encoder,
            registry.key_of(config, "text_encoder.params"),
            vocab_size=vocab_size,
            pad_token_id=pad_token_id,
        )
        hidden = self.text_encoder.hidden_size
        std = self.text_encoder.initializer_range
        channels = self.image_encoder.out_channels
        is_linear = config.projection == "linear"
        self.projection = nn.Linear(channels, hidden) if is_linear else ConvolutionalProjection(channels, hidden)
        self.pooler = nn.Linear(hidden, hidden) if config.pooler else None
        self.pixel_embedding = nn.Parameter(torch.zeros(hidden).normal_(std=std))  # the paper's s_v
        self.pixel_norm = nn.LayerNorm(hidden, eps=config.pixel_layer_norm_eps) if config.pixel_layer_norm else nn.Identity()
        self.pixel_dropout = nn.Dropout(config.pixel_dropout)
        if config.position_embedding == "2d":
            self.row_embedding = nn.Parameter(torch.zeros(config.max_grid_size, hidden).normal_(std=std))
            self.column_embedding = nn.Parameter(torch.zeros(config.max_grid_size, hidden).normal_(std=std))
        widths = {"image_answers": channels if is_linear else hidden}
        self.heads = nn.ModuleDict(
            {name: HEADS.get(name, AnswerHead)(widths.get(name, hidden), size) for name, size in heads.items()}
        )
        for module in (self.projection, self.pooler, *self.heads.modules()):
            if isinstance(module, nn.Linear):  # as BERT initialises its own
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        for name, pretrained in self.text_encoder.pretrained_heads().items():
            if name in self.heads:
                self.heads[name].load_state_dict(pretrained)
                logger.info("heads.%s: %d tensors taken from the text encoder's weights", name, len(pretrained))
        if config.freeze_image_encoder:
            self.image_encoder.requires_grad_(False)

    def forward(self, batch: Batch, return_attentions: bool = False, choose: Choose | None = None) -> ModelOutput:
        images = self.encode_images(batch)
        index_Q = batch.image_index.flatten()
        texts_per_sequence = batch.image_index.shape[1]
        words_QLD = self.embed_texts(batch.input_ids).repeat_interleave(texts_per_sequence, dim=0)
        text_mask_QL = batch.text_mask.repeat_interleave(texts_per_sequence, dim=0)
        # index_select: the gradient of plain indexing is summed in an order that changes from run to run, even on a CPU
        pixels_QKD, pixel_mask_QK = images.pixels.index_select(0, index_Q), images.mask[index_Q]
        sequences, attentions = (words_QLD, text_mask_QL, pixels_QKD, pixel_mask_QK), None
        read_RJ = None if return_attentions else batch.read_positions
        read_QJ = None if read_RJ is None else read_RJ.repeat_interleave(texts_per_sequence, dim=0)
        if choose is not None and self.text_encoder.draws is not None:
            words_QLD, pixels_QKD, logits = self._fuse_chosen(sequences, read_QJ, batch, choose)
        else:
            words_QLD, pixels_QKD, attentions = self.fuse(*sequences, return_attentions, read_QJ)
            logits = self._apply_heads(words_QLD, images.features, batch, read_RJ)
        return ModelOutput(
            logits=logits,
            text=words_QLD if read_QJ is None else None,
            pixels=pixels_QKD if read_QJ is None else None,
            pixel_mask=pixel_mask_QK,
            pixel_positions=images.positions[index_Q],
            grid=images.features.grid,
            attentions=attentions,
        )

    def _fuse_chosen(
        self, sequences: tuple[Tensor, Tensor, Tensor, Tensor], read_QJ: Tensor | None, batch: Batch, choose: Choose
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Last hidden states of words and pixels, without gradient, and the logits of the heads on [CLS]: all sequences go
        through the transformer without gradient, and those that `choose` names once more, with the same dropout and with it.
        """
        draws, count = self.text_encoder.draws, len(sequences[0])
        with draws.first(count, sequences[0].device):
            with torch.no_grad():
                words_QLD, pixels_QKD, _ = self.fuse(*sequences, False, read_QJ)
                logits = self.cls_logits(words_QLD)
            torch.clear_autocast_cache()  # it holds weights that were cast without gradient
            rows_q = choose(logits, batch)
            with draws.again(rows_q):
                words, text_mask, pixels, pixel_mask = (value.index_select(0, rows_q) for value in sequences)
                read_qJ = None if read_QJ is None else read_QJ.index_select(0, rows_q)
                words_qLD, _, _ = self.fuse(words, text_mask, pixels, pixel_mask, False, read_qJ)
                chosen = self.cls_logits(words_qLD)
        return words_QLD, pixels_QKD, {name: value.index_copy(0, rows_q, chosen[name]) for name, value in logits.items()}

    def encode_images(self, batch: Batch) -> ImageMemory:
        """The images' pixels as the transformer takes them: sampled in training where asked for, projected, plus s_v."""
        features = self._features(batch) if batch.features is None else batch.features
        if isinstance(self.projection, ConvolutionalProjection):  # it needs every pixel's neighbours
            features = self.projection(features)
        pixels_IKC, mask_IK = features.pixels, features.mask
        positions_IK = torch.arange(mask_IK.shape[1], device=mask_IK.device).expand_as(mask_IK)
        if self.training and self.config.num_sampled_pixels is not None:
            kept = self.config.num_sampled_pixels
            positions_IK, mask_IK = sample_pixels(mask_IK, batch.image_seeds, kept, features.grid)
            pixels_IKC = pixels_IKC.gather(1, positions_IK[..., None].expand(-1, -1, pixels_IKC.shape[-1]))
        projected_IKD = pixels_IKC if isinstance(self.projection, ConvolutionalProjection) else self.projection(pixels_IKC)
        pixels_IKD = projected_IKD + self.pixel_embedding
        if self.config.position_embedding == "2d":
            pixels_IKD = pixels_IKD + self._position_embeddings(positions_IK, features.grid)
        pixels_IKD = self.pixel_dropout(self.pixel_norm(pixels_IKD))
        return ImageMemory(pixels=pixels_IKD, mask=mask_IK, positions=positions_IK, features=features)

    def _features(self, batch: Batch) -> PixelFeatures:
        """What the CNN gives for the batch's images."""
        images = batch.images
        dtype = next((parameter.dtype for parameter in self.image_encoder.parameters()), None)
        if dtype == torch.float16 and isinstance(images, Tensor):
            images = images.half()  # pure half training; nobody else casts where only this part of the model is called
        with torch.no_grad() if self.config.freeze_image_encoder else nullcontext():
            features = self.image_encoder(images, batch.image_sizes)
        if not torch.compiler.is_exporting():  # where sizes are expressions, a question would fix them
            returned.pixel_features(self.image_encoder, features, len(images), self.image_encoder.out_channels)
        return features

    def embed_texts(self, input_ids_RL: Tensor) -> Tensor:
        """R L D: word and position embeddings, before the transformer."""
        return self.text_encoder.embed(input_ids_RL)

    def fuse(
        self,
        words_QLD: Tensor,
        text_mask_QL: Tensor,
        pixels_QKD: Tensor,
        pixel_mask_QK: Tensor,
        return_attentions: bool = False,
        read_QJ: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        """Words and pixels through the transformer. Returns words_QLD, pixels_QKD and, where asked for, attentions. Given
        `read_QJ`, int64, the words are those at these places alone, Q J D, and there are no pixels, Q 0 D."""
        hidden_QSD = torch.cat([words_QLD, pixels_QKD.to(words_QLD.dtype)], dim=1)
        mask_QS = torch.cat([text_mask_QL, pixel_mask_QK], dim=1)
        words, attentions = words_QLD.shape[1], None
        if read_QJ is None:
            hidden_QSD, attentions = self.text_encoder(hidden_QSD, mask_QS, return_attentions)
        else:
            hidden_QSD, words = self.text_encoder.read(hidden_QSD, mask_QS, read_QJ), read_QJ.shape[1]
        return hidden_QSD[:, :words], hidden_QSD[:, words:], attentions

    def pair_logits(
        self, words_QLD: Tensor, text_mask_QL: Tensor, pixels_QKD: Tensor, pixel_mask_QK: Tensor
    ) -> dict[str, Tensor]:
        """`cls_logits` of what `fuse` gives; of the last hidden states only [CLS]'s is computed."""
        cls_Q1 = torch.zeros(len(words_QLD), 1, dtype=torch.int64, device=words_QLD.device)
        return self.cls_logits(self.fuse(words_QLD, text_mask_QL, pixels_QKD, pixel_mask_QK, False, cls_Q1)[0])

    def train(self, mode: bool = True) -> "PixelBert":
        """A frozen CNN stays in evaluation mode: its batch norms' statistics are fixed too."""
        super().train(mode)
        if self.config.freeze_image_encoder:
            self.image_encoder.eval()
        return self

    @property
    def frozen_image_encoder(self) -> nn.Module | None:
        """The CNN, where it is left as it is (interfaces.Model)."""
        return self.image_encoder if self.config.freeze_image_encoder else None

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Named parameters by optimizer: the paper trains the CNN by SGD and all else by AdamW."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"cnn": [], "transformer": []}
        for name, parameter in self.named_parameters():
            groups["cnn" if name.startswith("image_encoder.") else "transformer"].append((name, parameter))
        return groups

    @property
    def grid_centres(self) -> tuple[float, float] | None:
        """Those of the CNN, or between two of them where the projection pools (interfaces.Model)."""
        found: tuple[float, float] | None = self.image_encoder.grid_centres
        if found is None or not isinstance(self.projection, ConvolutionalProjection):
            return found
        return found[0] + found[1] / 2, 2 * found[1]

    @property
    def normalization(self) -> Normalization | None:
        """That of the CNN's weights (interfaces.Model)."""
        return self.image_encoder.normalization

    def portable(self) -> PixelBertConfig:
        """The options that build the model without the files of weights its encoders began with (interfaces.Portable)."""
        return replace(
            self.config,
            image_encoder=portable_component(self.image_encoder, self.config.image_encoder),
            text_encoder=portable_component(self.text_encoder, self.config.text_encoder),
        )

    def save_pretrained(self, folder: Path) -> dict[str, str]:
        """The CNN in folder/image_encoder, the transformer in folder/text_encoder (interfaces.Publishable)."""
        return {
            **self.image_encoder.save_pretrained(folder / "image_encoder"),
            **self.text_encoder.save_pretrained(folder / "text_encoder", dict(self.heads.items())),
        }

    def prepare_inference(self) -> None:
        """The CNN's part of it (interfaces.Inferring)."""
        self.image_encoder.prepare_inference()

    def shard_units(self) -> list[nn.Module]:
        """The CNN's stages and the transformer's layers."""
        return [*self.image_encoder.shard_units(), *self.text_encoder.shard_units()]

    def compile_units(self) -> list[CompileUnit]:
        """The CNN's blocks and the transformer's layers."""
        return [*self.image_encoder.compile_units(), *self.text_encoder.compile_units()]

    def _position_embeddings(self, positions_IK: Tensor, grid: tuple[int, int]) -> Tensor:
        if not torch.compiler.is_exporting() and max(grid) > self.config.max_grid_size:
            raise UserError(
                f"{registry.key_of(self.config, 'max_grid_size')}={self.config.max_grid_size}: an image gives a grid of "
                f"{grid[0]} × {grid[1]} pixels; raise it or lower processors.image.params.long_edge"
            )
        columns = grid[1]
        return self.row_embedding[positions_IK // columns] + self.column_embedding[positions_IK % columns]

    def cls_logits(self, words_QLD: Tensor) -> dict[str, Tensor]:
        """The logits of every head that reads [CLS]."""
        cls_QD = words_QLD[:, 0]
        if self.pooler is not None:
            cls_QD = self.pooler(cls_QD).tanh()
        return {name: head(cls_QD) for name, head in self.heads.items() if name not in ("mlm", "image_answers")}

    def _apply_heads(
        self, words_QLD: Tensor, features: PixelFeatures, batch: Batch, read_RJ: Tensor | None
    ) -> dict[str, Tensor]:
        """Each head's logits; the masked-language head only at the words that the task masked. words_QLD: those at `read_RJ`,
        where that is given, else all."""
        logits = self.cls_logits(words_QLD)
        if "mlm" in self.heads:
            positions_M = batch.targets["mlm_positions"]
            if read_RJ is not None:
                positions_M = _among(read_RJ, positions_M, batch.input_ids.shape[1])
            masked_MD = words_QLD.flatten(0, 1).index_select(0, positions_M)
            logits["mlm"] = self.heads["mlm"](masked_MD, self.text_encoder.word_embeddings)
        if "image_answers" in self.heads:
            logits["image_answers"] = self.heads["image_answers"](features.pixels, features.mask)
        return logits


def _among(read_RJ: Tensor, positions_M: Tensor, length: int) -> Tensor:
    """Where words stand among those read: places in R·L texts of `length` words → places in R·J."""
    rows_M, words_M = positions_M // length, positions_M % length
    slots_M = (read_RJ.index_select(0, rows_M) == words_M[:, None]).int().argmax(1)
    return rows_M * read_RJ.shape[1] + slots_M
