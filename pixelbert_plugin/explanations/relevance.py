"""Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability": attention weighted by the gradient of the answer."""

import torch

from pixelbert_plugin import registry
from pixelbert_plugin.explanations.sequence import attended, maps_of, rolled
from pixelbert_plugin.types import ExplanationInput, ExplanationMap


@registry.register_explanation("relevance")
class Relevance:
    """Relevance (Chefer et al. 2021): R ← R + Ā R over the layers, Ā the mean over the heads of relu(∇A ⊙ A).

    ∇A is the gradient of the answer's log-odds; R begins as the unit matrix. So what is attended to counts as far as more
    attention there would make the answer more probable. Source: their equations 5 and 6, for self-attention.
    """

    needs_attentions = True

    def __call__(self, given: ExplanationInput) -> list[ExplanationMap]:
        with torch.enable_grad():
            output, attentions = attended(given)
            gradients = torch.autograd.grad(given.score(output).sum(), attentions)
        pairs = zip(attentions, gradients, strict=True)
        layers_NSS = [(weights.detach().float() * slope.float()).clamp(min=0).mean(1) for weights, slope in pairs]
        return maps_of(rolled(layers_NSS), given, output)
