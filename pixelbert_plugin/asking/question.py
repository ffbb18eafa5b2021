"""One thing that a loaded model can be asked: what all of them share. B pairs of a text with its image, or its two.

A task says by `asked()` what a model of it can be asked, and makes probabilities of logits; a Question makes results of these.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from pixelbert_plugin.asking.images import Decoded, ahead
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import returned
from pixelbert_plugin.types import Batch

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel

logger = logging.getLogger(__name__)
BATCH_SIZE = 32  # pairs that go through the model at once
CALLS = {  # by what a task can be asked, the methods that ask it
    "answer": "answer(image, question)",
    "match": "match(image, texts) and search(images, text)",
    "compare": "compare(left, right, statement)",
    "fill": "fill(image, text with [MASK])",
}
R = TypeVar("R")  # the result of one pair
Row = dict[str, Any]  # a result as a table or a file shows it, values by column


class Question(ABC, Generic[R]):
    """One of what can be asked, of one model. Raises UserError where the model's task has no head for it."""

    method: ClassVar[str]  # of LoadedModel
    images: ClassVar[tuple[str, ...]] = ("image",)  # the arguments that are images
    text: str = "text"  # the argument that is the text; of a file's rows, their column
    asks: ClassVar[str]  # a key of the task's `asked()`

    def __init__(self, model: "LoadedModel", top_k: int = 1):
        require_count("top_k", top_k)
        self.model, self.top_k = model, top_k
        self.read: Callable[[dict[str, Tensor]], Tensor] = head(model, self.method, self.asks)

    def check(self, text: Any) -> str:
        """The text, if it can be asked about. Raises UserError."""
        if not isinstance(text, str):
            raise UserError(f"{self.text}={text!r}: must be text (str), not {type(text).__name__}")
        if not text.strip():
            raise UserError(f"{self.text}={text!r}: is empty")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"{self.text}={text!r}: holds a character that is no Unicode text")
        return text

    def of(self, pairs: Sequence[tuple[Any, str]]) -> list[R]:
        """The results of pairs that were checked, in one forward."""
        batch = self.model.batch(pairs, self.model.task.reads_logits_only)
        values = self.read(self.model.output(batch).logits)
        returned.asked(self.model.task, self.asks, values, self.shape(batch))
        values = values.cpu()
        if not torch.isfinite(values).all():
            raise UserError(f"{self.method}: a probability is not finite; load the model with precision='fp32'")
        return self.results(values, batch)

    def shape(self, batch: Batch) -> tuple[int, ...]:
        """Of what the task gives: B, where there is nothing more."""
        return (len(batch),)

    @abstractmethod
    def results(self, values: Tensor, batch: Batch) -> list[R]:
        """B results from what the task gives."""

    @abstractmethod
    def rows(self, result: R) -> list[Row]:
        """A result as a table or a file shows it, the best first."""


def head(model: "LoadedModel", method: str, asks: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """What the task makes of the logits. Raises UserError, which says what the model can be asked, where it has no head."""
    task = model.task
    known = task.asked()
    if asks in known:
        return known[asks]
    can = ", ".join(CALLS.get(name, name) for name in known)
    raise UserError(
        f"{method}: the task {model.config.task!r} of {str(model.path)!r} cannot be asked this (its heads: "
        f"{', '.join(task.heads())}); it can be asked {can or 'nothing by a method: model(image, text).logits has its logits'}"
    )


def require_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UserError(f"{name}={value!r}: must be a whole number from 1 on")


def ask(question: Question[R], images: Sequence[Any], text: Any, batch_size: int) -> R | list[R]:
    """The result for one pair, or a list of results for several, in order, `batch_size` pairs in a forward.

    `images`: for each of the question's images, one, or a list of them; `text` likewise. Lists must be of equal length; what is
    given once goes with all.
    """
    require_count("batch_size", batch_size)
    names = (*question.images, question.text)
    given = (*images, text)
    lengths = {name: len(value) for name, value in zip(names, given, strict=True) if isinstance(value, list | tuple)}
    for name, length in lengths.items():
        if not length:
            raise UserError(f"{name}=[]: is an empty list; give one or more")
    if len(set(lengths.values())) > 1:
        told = " and ".join(f"{length} of {name}" for name, length in lengths.items())
        raise UserError(f"{question.method}: {told}; give lists of equal length, or one for all")
    count = next(iter(lengths.values()), 1)
    columns = [value if name in lengths else [value] * count for name, value in zip(names, given, strict=True)]
    texts = checked(question, columns.pop())
    pairs = [(made[0] if len(made) == 1 else list(made), each) for *made, each in zip(*columns, texts, strict=True)]
    if count <= batch_size:
        results = question.of(pairs)
    else:
        parts = (pairs[start : start + batch_size] for start in range(0, count, batch_size))
        results = [result for part in ahead(lambda part: _read(question.model, part), parts) for result in question.of(part)]
    return results if lengths else results[0]


def _read(model: "LoadedModel", pairs: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """The pairs with their image files read, each file once. Raises UserError for one that cannot be."""
    read: dict[str, Decoded] = {}

    def one(image: Any) -> Any:
        if not isinstance(image, str | Path):
            return image
        if str(image) not in read:
            read[str(image)] = Decoded(model.decoded(image))
        return read[str(image)]

    return [([one(each) for each in image] if isinstance(image, list) else one(image), text) for image, text in pairs]


def checked(question: Question[Any], text: Any) -> list[str]:
    """The text, or a list of them, as a list. Raises UserError for one that cannot be asked about; says how many are cut."""
    given = list(text) if isinstance(text, list | tuple) else [text]
    if not given:
        raise UserError(f"{question.text}=[]: is an empty list; give one or more")
    texts = [question.check(each) for each in given]
    if number := cut(question.model, list(dict.fromkeys(texts))):
        logger.warning("%s", told_cut(question.model, number))
    return texts


def cut(model: "LoadedModel", texts: Sequence[str]) -> int:
    """How many of the texts are longer than the model reads."""
    text = model.processors["text"]
    return text.count_cut(each for each in texts if len(each.encode("utf-8", "replace")) >= text.shortest_cut)


def told_cut(model: "LoadedModel", number: int) -> str:
    limit = model.processors["text"].max_length
    limit_told = "the model reads" if limit is None else f"{limit} tokens"
    return f"{number:,} text(s) are longer than {limit_told} and were cut, as in training"
