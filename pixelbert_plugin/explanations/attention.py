"""Where the words of a text look: what the last layer's attention gives to each pixel."""

import torch

from pixelbert_plugin import registry
from pixelbert_plugin.explanations.sequence import attended, maps_of
from pixelbert_plugin.types import ExplanationInput, ExplanationMap


@registry.register_explanation("attention")
class Attention:
    """The last layer's attention, heads averaged: what it mixes into the token that the answer is read at, and into each word.

    A token's attention adds up to 1 over all that it can look at, words and pixels; a map is the pixels' part. It does not
    depend on the answer, and by the last layer each pixel has taken in others.
    """

    needs_attentions = True

    def __call__(self, given: ExplanationInput) -> list[ExplanationMap]:
        with torch.no_grad():
            output, attentions = attended(given)
            return maps_of(attentions[-1].float().mean(1), given, output)
