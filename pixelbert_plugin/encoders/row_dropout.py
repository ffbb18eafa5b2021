"""Dropout that can be repeated for some of a batch's sequences: the masks of all are drawn again, and theirs are taken.

Retrieval scores all captions of an image without gradient, and sends the hardest through the transformer once more with
gradient. That is the gradient of the first pass only if each sequence loses the same values in both.

Q sequences of the first pass, q ≤ Q of them in the second; values Q … float.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Drawing(NamedTuple):
    """For which sequences a dropout draws."""

    sequences: int | None = None  # Q of the first pass; None: those that are there, by torch's own dropout
    rows_q: Tensor | None = None  # int64: those of them that are there; None: all


class RowDraws:
    """The draws of one transformer's dropouts. Outside `first` and `again` they are torch's own."""

    def __init__(self) -> None:
        self.drawing = Drawing()
        self._before: Tensor | None = None  # state of the device's generator

    @property
    def is_on(self) -> bool:
        """Whether draws are made for all sequences, by `dropout`."""
        return self.drawing.sequences is not None

    @contextmanager
    def at(self, drawing: Drawing) -> Iterator[None]:
        """Draw so, as a pass did that is computed again."""
        usual, self.drawing = self.drawing, drawing
        try:
            yield
        finally:
            self.drawing = usual

    @contextmanager
    def first(self, sequences: int, device: torch.device) -> Iterator[None]:
        """Draw for so many sequences, such that `again`, inside, can repeat it."""
        self._before = _generator_state(device)
        try:
            with self.at(Drawing(sequences)):
                yield
        finally:
            self._before = None

    @contextmanager
    def again(self, rows_q: Tensor) -> Iterator[None]:
        """Make the same draws once more, for these of the sequences alone."""
        if self._before is None:
            raise RuntimeError("nothing was drawn yet: again belongs inside first")
        _set_generator_state(rows_q.device, self._before)
        with self.at(self.drawing._replace(rows_q=rows_q)):
            yield

    def dropout(self, values: Tensor, probability: float) -> Tensor:
        """Zeros at random places, the rest divided by 1 - probability."""
        sequences, rows_q = self.drawing
        shape = (len(values) if sequences is None else sequences, *values.shape[1:])
        if torch.compiler.is_compiling():  # a compiled pass takes its seeds for `rand` in the order of these lines, in both
            kept = (torch.rand(shape, device=values.device) < 1 - probability).to(values.dtype) / (1 - probability)
        else:
            kept = torch.empty(shape, dtype=values.dtype, device=values.device)
            kept.bernoulli_(1 - probability).div_(1 - probability)
        return values * (kept if rows_q is None else kept.index_select(0, rows_q))


class RowDropout(nn.Module):
    """nn.Dropout, but for what `draws` has on."""

    def __init__(self, probability: float, draws: RowDraws):
        super().__init__()
        self.p, self.draws = probability, draws

    def forward(self, values: Tensor) -> Tensor:
        if self.training and self.p and self.draws.is_on:
            return self.draws.dropout(values, self.p)
        return F.dropout(values, self.p, self.training)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float
) -> tuple[Tensor, Tensor]:
    """Attention with its dropout by `module.draws`.

    query Q heads J d; key, value Q heads S d; mask Q 1 1 S bool, True at what is attended to. Returns Q J heads d, and weights.
    """
    scores = query @ key.transpose(2, 3) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    if dropout:
        weights = module.draws.dropout(weights, dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _generator_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_generator_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
