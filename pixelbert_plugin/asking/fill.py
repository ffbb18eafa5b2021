"""The masked words of a text about an image, by the head of masked language modelling. B texts, M [MASK]s, V vocabulary."""

import functools
from typing import Any

import torch
from torch import Tensor

from pixelbert_plugin.asking.question import Question, Row
from pixelbert_plugin.asking.results import Filled, Fillings
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Batch

MASK = "[MASK]"
UNKNOWN = "[UNK]"
CONTINUES = "##"  # how WordPiece writes an entry that continues a word


class FillQuestion(Question[Fillings]):
    """The most probable words at each [MASK], each by itself; special tokens, which training never masks, are left out."""

    method, text, asks = "fill", "text", "fill"

    def check(self, text: Any) -> str:
        given = super().check(text)
        wanted, tokens = given.count(MASK), self._text(given)[0].count(self._text.mask_token_id)
        if not wanted:
            hint = "; it is written in capitals" if MASK.lower() in given.lower() else ""
            if not hint and "match" in self.model.task.asked():
                hint = "; whether a text belongs to the image is asked by texts, see match"
            raise UserError(f"{self.text}={given!r}: has no {MASK}, the word that is asked for{hint}")
        if tokens != wanted:
            raise UserError(
                f"{self.text}={given[:200]!r}: {wanted - tokens} of its {wanted} {MASK} lie behind the {self._text.max_length} "
                "tokens that the model reads; shorten the text"
            )
        return given

    def shape(self, batch: Batch) -> tuple[int, ...]:
        return len(batch.targets["mlm_positions"]), self._text.vocab_size

    def results(self, values: Tensor, batch: Batch) -> list[Fillings]:
        values = values.masked_fill(~self.is_word_V, -1)  # no probability: behind all words
        words_VK = values.sort(dim=1, descending=True, stable=True)
        count = min(self.top_k, int(self.is_word_V.sum()))
        of_masks = zip(words_VK.indices[:, :count].tolist(), words_VK.values[:, :count].tolist(), strict=True)
        found = []
        for sample in batch.samples:
            parts = sample.text.split(MASK)
            masks = tuple(self._filled(parts, place, *next(of_masks)) for place in range(1, len(parts)))
            whole = parts[0]
            for words, after in zip(masks, parts[1:], strict=True):
                whole = joined(whole, words[0].word, after)
            found.append(Fillings(sample.text, masks, whole))
        return found

    def rows(self, result: Fillings) -> list[Row]:
        return [
            {"mask": number, "word": filled.word, "probability": filled.probability, "filled": filled.text}
            for number, words in enumerate(result.masks, 1)
            for filled in words
        ]

    def _filled(self, parts: list[str], place: int, ids: list[int], values: list[float]) -> tuple[Filled, ...]:
        """The words at the [MASK] before `parts[place]`."""
        before, after = MASK.join(parts[:place]), MASK.join(parts[place:])
        words = [self._word(entry) for entry in ids]
        return tuple(Filled(word, value, joined(before, word, after)) for word, value in zip(words, values, strict=True))

    def _word(self, entry: int) -> str:
        word = self._text.decode([entry]) or UNKNOWN  # a special token too, though it stands for a word
        return f"{CONTINUES}{word}" if self._continues_V[entry] and not word.startswith(CONTINUES) else word

    @property
    def _text(self) -> Any:
        return self.model.processors["text"]

    @functools.cached_property
    def _continues_V(self) -> list[bool]:
        return self._text.pieces()[1].tolist()

    @functools.cached_property
    def names(self) -> list[str]:
        """V: each entry of the vocabulary as it is written."""
        return [self._word(entry) for entry in range(self._text.vocab_size)]

    @functools.cached_property
    def is_word_V(self) -> Tensor:
        """V bool: which entries are words or pieces, not special tokens."""
        return torch.from_numpy(self._text.pieces()[0])


def joined(before: str, word: str, after: str) -> str:
    """The text with the word in it; one that continues a word stands at once behind what is before."""
    if word.startswith(CONTINUES) and len(word) > len(CONTINUES):
        before, word = before.rstrip(), word.removeprefix(CONTINUES)
    return f"{before}{word}{after}"
