"""Answer processor: the vocabulary of answers and each question's soft scores over it. A answers of the vocabulary.

An answer of the vocabulary is a class of spellings that the official rule may take for one ("T-shirt", "t shirt."). The rule
does so only where annotators disagree, so a class is predicted in its most frequent spelling, never in the normalised one.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.metrics.vqa import normalize_answer, one_line, soft_score, soft_scores
from pixelbert_plugin.processors.answer_files import read_answers
from pixelbert_plugin.processors.options import AnswersConfig

logger = logging.getLogger(__name__)
normalized = lru_cache(maxsize=1 << 18)(normalize_answer)  # the same few thousand spellings recur
on_one_line = lru_cache(maxsize=1 << 18)(one_line)
NUM_NAMED = 5  # merged answers that are named


@registry.register_processor("answers")
class AnswerProcessor:
    """Answers by index: counted with a threshold or read from a file; soft scores by the VQA rule."""

    Config = AnswersConfig

    def __init__(self, config: AnswersConfig):
        self.config = config
        self._set([], [])
        if config.vocabulary is not None:
            key = registry.key_of(config, "vocabulary")
            self._set(*_classes(read_answers(Path(config.vocabulary), key), f"{key}={config.vocabulary}"))

    @property
    def splits(self) -> list[str]:
        """Where answers are counted."""
        return self.config.splits

    @property
    def remedy(self) -> str:
        """What to change where the vocabulary covers few questions."""
        return (
            "is it of this data set?" if self.config.vocabulary else f"lower {registry.key_of(self.config, 'min_occurrences')}"
        )

    @property
    def needs_fit(self) -> bool:
        """True until a vocabulary is counted (`fit`) or loaded."""
        return not self.answers

    def fit(self, main_answers: Iterable[str], spellings: Iterable[str] = ()) -> None:
        """Count main answers by class; most frequent first, ties by the alphabet. `spellings`: see `learn_spellings`.

        Either may be a Counter. Raises UserError where no answer is left. A main answer without a word is none.
        """
        given = Counter(main_answers)
        counts: Counter[str] = Counter()
        for answer, count in given.items():
            counts[answer_key(answer)] += count
        counts.pop("", None)
        kept = [answer for answer, count in counts.items() if count >= self.config.min_occurrences]
        if not counts:
            where, splits = registry.key_of(self.config), ", ".join(self.config.splits)
            raise UserError(f"{where}: no question of {splits} has an answer to count")
        if not kept:
            most = max(counts.values())
            raise UserError(
                f"{registry.key_of(self.config, 'min_occurrences')}={self.config.min_occurrences}: no answer occurs so often "
                f"in {', '.join(self.config.splits)} (the most frequent one {most} times); lower it"
            )
        kept.sort(key=lambda answer: (-counts[answer], answer))
        self._set(kept, kept)
        self.learn_spellings(given)
        self.learn_spellings(spellings)

    def learn_spellings(self, spellings: Iterable[str]) -> None:
        """Predict each class as the most frequent of its `spellings`, ties by the alphabet; a Counter, or one by one."""
        best: dict[int, tuple[int, str]] = {}
        lines: Counter[str] = Counter()
        for spelling, count in Counter(spellings).items():
            lines[on_one_line(spelling)] += count
        for line, count in lines.items():
            index = self._index_of(line)
            if index is not None and line:
                best[index] = min(best.get(index, (0, "")), (-count, line))
        self._set(self.answers, [best[index][1] if index in best else self.spellings[index] for index in range(len(self))])

    def __len__(self) -> int:
        return len(self.answers)

    def scores(self, answers: tuple[str, ...]) -> Tensor:
        """A float32: the soft score of every class of the vocabulary, 0 for those nobody gave."""
        scores_A = torch.zeros(len(self.answers))
        by_normalized = soft_scores(tuple(map(normalized, answers)))
        for answer in set(answers):
            index = self._index_of(answer)
            if index is not None:
                scores_A[index] = by_normalized[normalized(answer)]
        return scores_A

    def ceiling(self, answers: tuple[str, ...]) -> float:
        """The official accuracy of the best prediction that the vocabulary allows for a question, in 0…1."""
        given, predicted = [*map(on_one_line, answers)], self._predicted  # where all agree, compared as they are written
        if given.count(given[0]) < len(given):
            given, predicted = [*map(normalized, given)], self._predicted_normalized
        matches = max([given.count(answer) for answer in predicted.intersection(given)], default=0)
        return soft_score(matches, len(given)) if matches else 0.0

    def covers(self, answers: tuple[str, ...]) -> bool:
        """Whether one of a question's answers is in the vocabulary."""
        return any(self._index_of(answer) is not None for answer in set(answers))

    def portable(self) -> AnswersConfig:
        """The options where the vocabulary comes from a checkpoint (interfaces.Portable)."""
        return replace(self.config, vocabulary=None)

    def state_dict(self) -> dict[str, Any]:
        return {"answers": self.answers, "spellings": self.spellings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a checkpoint's vocabulary. Earlier versions saved no spellings: they predicted the classes' names."""
        answers, spellings = state["answers"], state.get("spellings", state["answers"])
        if not all(isinstance(text, str) for text in (*answers, *spellings)) or len(answers) != len(spellings):
            raise ValueError("answers and spellings must be as many texts")
        self._set(answers, spellings)

    def _index_of(self, answer: str) -> int | None:
        """The class of an answer as it is written. A word that the official rule drops ("the") has a class of its own; a
        vocabulary from elsewhere may have one for all of them, ""."""
        index = self._index.get(answer_key(answer))
        return self._index.get("") if index is None and not normalized(answer) else index

    def _set(self, answers: list[str], spellings: list[str]) -> None:
        self.answers, self.spellings = list(answers), list(spellings)  # A: classes by name, and as they are predicted
        self._index = {answer: index for index, answer in enumerate(answers)}
        self._predicted, self._predicted_normalized = set(spellings), set(map(normalized, spellings))


def answer_key(answer: str) -> str:
    """The name of an answer's class: the answer normalised; where nothing is left of it (articles, marks), in lower case."""
    return normalized(answer) or on_one_line(answer).lower()


def _classes(entries: list[str], source: str) -> tuple[list[str], list[str]]:
    """The classes of a file's entries and their spellings there; entries of one class are merged into the first, and said."""
    spelling_of: dict[str, str] = {}
    merged = []
    for entry in entries:
        first = spelling_of.setdefault(answer_key(entry), entry)
        if first is not entry:
            merged.append(f"{entry!r} with {first!r}")
    if merged:
        named = ", ".join(merged[:NUM_NAMED]) + (", …" if len(merged) > NUM_NAMED else "")
        logger.warning(
            "%s: %d of its %d answers are the same as another after the official normalisation, and were merged: %s",
            source,
            len(merged),
            len(entries),
            named,
        )
    return list(spelling_of), list(spelling_of.values())
