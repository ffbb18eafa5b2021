"""transformers' BertLayer that can compute its output at some positions alone, with the attention that a pass asks for.

B sequences, S tokens and pixels, J positions read, D hidden size in h heads of d.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLayer

from pixelbert_plugin.encoders.row_dropout import Drawing, RowDraws, attend
from pixelbert_plugin.types import CompileUnit


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What all layers share in one pass. It is an argument, so that a layer which is computed again in the backward pass
    (training.gradient_checkpointing) computes the same."""

    mask_B11S: Tensor  # bool, True at what is attended to
    attention: Literal["sdpa", "weights", "rows"]  # torch's; by way of the weights; or `row_dropout.attend`
    drawing: Drawing  # for which sequences dropout draws


class Layer(BertLayer):
    """transformers' layer with its names and weights."""

    draws: RowDraws

    def forward(
        self, hidden_states: Tensor, *others: Any, call: Pass | None = None, positions_BJ: Tensor | None = None, **named: Any
    ) -> Any:
        """hidden_states B S D. Without `call`, transformers' own forward. With it: the layer's output, B S D, and the weights
        of attention, B h S S (None for "sdpa"); given `positions_BJ` (int64), both at these positions alone, B J D and B h J S:
        keys and values are of all positions, queries and all that follows attention of these."""
        if call is None:
            return super().forward(hidden_states, *others, **named)
        read_BJD = hidden_states if positions_BJ is None else _at(hidden_states, positions_BJ)
        return self._compute(hidden_states, read_BJD, call)

    def _compute(self, hidden_BSD: Tensor, read_BJD: Tensor, call: Pass) -> tuple[Tensor, Tensor | None]:
        with self.draws.at(call.drawing):
            context_BJD, weights = self._attend(read_BJD, hidden_BSD, call)
            attended_BJD = self.attention.output(context_BJD, read_BJD)
            return self.output(self.intermediate(attended_BJD), attended_BJD), weights

    def _attend(self, read_BJD: Tensor, hidden_BSD: Tensor, call: Pass) -> tuple[Tensor, Tensor | None]:
        own: Any = self.attention.self

        def heads(values: Tensor) -> Tensor:
            return values.unflatten(-1, (own.num_attention_heads, own.attention_head_size)).transpose(1, 2)

        query, key, value = heads(own.query(read_BJD)), heads(own.key(hidden_BSD)), heads(own.value(hidden_BSD))
        lost = own.dropout.p if self.training else 0.0
        weights = None
        if call.attention == "rows":
            context, weights = attend(own, query, key, value, call.mask_B11S, own.scaling, lost)
            return context.flatten(2), weights
        if call.attention == "sdpa":
            context = F.scaled_dot_product_attention(query, key, value, call.mask_B11S, dropout_p=lost, scale=own.scaling)
        else:
            scores = query @ key.transpose(2, 3) * own.scaling
            scores = scores.masked_fill(~call.mask_B11S, torch.finfo(scores.dtype).min)
            weights = F.dropout(scores.softmax(-1), lost, self.training)
            context = weights @ value
        return context.transpose(1, 2).flatten(2), weights


def adapt(layer: nn.Module, draws: RowDraws) -> None:
    """Make a layer of transformers' one of these, in place."""
    adapted: Any = layer
    adapted.__class__, adapted.draws = Layer, draws


def compile_unit(layer: nn.Module) -> CompileUnit:
    """One of these layers, for a pass whose weights of attention nobody asks for."""
    return CompileUnit(layer, _computed, _inputs)


def _computed(
    layer: Any,
    hidden_BSD: Tensor,
    read_BJD: Tensor | None,
    mask_B11S: Tensor,
    attention: Literal["sdpa", "weights", "rows"],
    sequences: int | None,
    rows_q: Tensor | None,
) -> tuple[Tensor, None]:
    """What `Layer.forward` gives, without the weights, which then need not be formed; of tensors and numbers alone."""
    call = Pass(mask_B11S=mask_B11S, attention=attention, drawing=Drawing(sequences, rows_q))
    return layer._compute(hidden_BSD, hidden_BSD if read_BJD is None else read_BJD, call)[0], None


def _inputs(hidden_states: Tensor, *, call: Pass, positions_BJ: Tensor | None = None) -> tuple[Any, ...]:
    """For `_computed`. Reading is left outside: compiled, its gradient would be added up in the order of the threads."""
    read_BJD = None if positions_BJ is None else _at(hidden_states, positions_BJ)
    return hidden_states, read_BJD, call.mask_B11S, call.attention, *call.drawing


def _at(hidden_BSD: Tensor, positions_BJ: Tensor) -> Tensor:
    return hidden_BSD.gather(1, positions_BJ[..., None].expand(-1, -1, hidden_BSD.shape[-1]))
