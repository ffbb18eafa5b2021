"""Encoders as MMF's, for models other than ours: tensors in, tensors out. B images or texts, P pixels, C channels, L tokens."""

import dataclasses
from typing import Any

import torch
from mmf.modules.encoders import Encoder
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.interfaces import TextEncoder
from pixelbert_plugin.mmf.nodes import plain
from pixelbert_plugin.registry import contracts

NOT_OPTIONS = {"name", "vocab_size", "pad_token_id"}  # what MMF, and the tokenizer of a text encoder, add to the options
VOCABULARY = {"vocab_size": 30522, "pad_token_id": 0}  # bert-base-uncased


class MmfEncoder(Encoder):
    """One of our encoders; `config` holds its options, and `vocab_size` and `pad_token_id` for a text encoder."""

    own = ""  # set by `wrap_encoder`

    def __init__(self, config: Any = None, *args: Any, **kwargs: Any):
        super().__init__()
        values = plain(config)
        options = {key: value for key, value in values.items() if key not in NOT_OPTIONS}
        context = {key: values.get(key, default) for key, default in VOCABULARY.items()} if is_text(self.own) else {}
        self.module = registry.build("encoder", self.own, options, f"encoder.{self.own}", **context)
        self.out_dim = self.module.hidden_size if context else self.module.out_channels


class MmfImageEncoder(MmfEncoder):
    def forward(self, images_B3HW: Tensor, image_sizes_B2: Tensor | None = None) -> Tensor:
        """B P C: the pixels of each image's grid, rows first; 0 at padding. Sizes: height, width; without them, no padding."""
        if image_sizes_B2 is None:
            image_sizes_B2 = torch.tensor(images_B3HW.shape[-2:]).expand(len(images_B3HW), 2)
        return self.module(images_B3HW, image_sizes_B2).pixels


class MmfTextEncoder(MmfEncoder):
    def forward(
        self, input_ids_BL: Tensor, mask_BL: Tensor | None = None, *, return_sequence: bool = False, **_: Any
    ) -> Tensor:
        """B D, the hidden state of [CLS], or B L D with `return_sequence`. Mask: 1 or True at tokens."""
        mask_BL = torch.ones_like(input_ids_BL, dtype=torch.bool) if mask_BL is None else mask_BL.bool()
        hidden_BLD, _ = self.module(self.module.embed(input_ids_BL), mask_BL)
        return hidden_BLD if return_sequence else hidden_BLD[:, 0]


def is_text(own: str) -> bool:
    return contracts.use_of("encoder", registry.get("encoder", own)).contract is TextEncoder


def wrap_encoder(own: str, name: str) -> type[MmfEncoder]:
    """An encoder of MMF's around ours, to be registered as `name`."""
    options = registry.options_of("encoder", own)
    fields = [] if options is None else dataclasses.fields(options)
    extra = [(key, int, default) for key, default in VOCABULARY.items()] if is_text(own) else []
    made = [(field.name, Any, _default(field)) for field in fields]
    config = dataclasses.make_dataclass("Config", [("name", str, name), *made, *extra], bases=(Encoder.Config,))
    base = MmfTextEncoder if is_text(own) else MmfImageEncoder
    return type(f"Mmf_{own}", (base,), {"own": own, "Config": config, "__doc__": f"{own} of pixelbert_plugin, for MMF."})


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return dataclasses.field(default_factory=field.default_factory)
