"""Attention rollout (Abnar and Zuidema 2020): attention through all layers, residual paths included."""

import torch
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.explanations.options import RolloutConfig
from pixelbert_plugin.explanations.sequence import attended, maps_of
from pixelbert_plugin.types import ExplanationInput, ExplanationMap


@registry.register_explanation("rollout")
class Rollout:
    """Attention rollout: the layers' matrices of attention multiplied, heads averaged, each mixed with the residual path.

    A row adds up to 1 over words and pixels. It does not depend on the answer. Source: Abnar and Zuidema 2020, section 3.
    """

    Config = RolloutConfig
    needs_attentions = True

    def __init__(self, config: RolloutConfig):
        self.config = config

    def __call__(self, given: ExplanationInput) -> list[ExplanationMap]:
        with torch.no_grad():
            output, attentions = attended(given)
            return maps_of(rollout([weights.float().mean(1) for weights in attentions], self.config.residual), given, output)


def rollout(layers_NSS: list[Tensor], residual: float) -> Tensor:
    """N S S: the product of r · I + (1 − r) · A over the layers, the last one leftmost."""
    first = layers_NSS[0]
    unit_SS = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    found_NSS = unit_SS.expand_as(first)
    for weights_NSS in layers_NSS:
        found_NSS = (residual * unit_SS + (1 - residual) * weights_NSS) @ found_NSS
    return found_NSS
