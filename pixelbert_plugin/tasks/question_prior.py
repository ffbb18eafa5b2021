"""The question-only baselines of VQA: what is answered most often where only the question is known.

Counted over half a million questions at once. R rows: distinct questions with an answer; F distinct facts: what is known of a
question; K keys: what is looked up of a fact, such as first words; P pairs of a fact and a key; C classes of answers.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from pixelbert_plugin.interfaces import TrainSamples
from pixelbert_plugin.metrics.vqa import one_line
from pixelbert_plugin.processors.answers import answer_key
from pixelbert_plugin.types import Sample

Row = tuple[str, str, str]  # a question, its question_type or "", its main answer


class Answered:
    """How often training questions were given each answer, by classes of answers as the vocabulary's are. R rows."""

    def __init__(self, counts: Mapping[Row, int]):
        classes = {answer: answer_key(answer) for answer in {answer for _, _, answer in counts}}
        spellings: dict[str, Counter[str]] = defaultdict(Counter)  # by class
        by_answer: Counter[str] = Counter()
        for (_, _, answer), count in counts.items():
            by_answer[answer] += count
        for answer, count in by_answer.items():
            spellings[classes[answer]][one_line(answer)] += count
        names = sorted(spellings)
        numbers = {name: number for number, name in enumerate(names)}
        class_of = {answer: numbers[name] for answer, name in classes.items()}
        self.answers_C = [_first(spellings[name]) for name in names]  # each class in its most frequent spelling
        self.questions_R = [(text, kind) for text, kind, _ in counts]  # text and question_type
        self.classes_R = np.fromiter((class_of[answer] for _, _, answer in counts), np.int64, len(counts))
        self.counts_R = np.fromiter(counts.values(), np.int64, len(counts))


def count_answered(train_samples: TrainSamples) -> Answered:
    """Of every training question with an answer; those without are passed over."""
    rows = Counter(train_samples.labelled("question_type"))
    return Answered({(text, kind, answer): count for (text, kind, answer), count in rows.items() if answer is not None})


class QuestionPrior:
    """The answer most often given to the same question in training, image unseen.

    An unseen question gets the most frequent answer of its question_type, or of all training questions. Answers are counted
    by class, as the vocabulary's are, and given in the class's most frequent spelling. Ties go by the alphabet.
    """

    def __init__(self, answered: Answered):
        num_classes = max(1, len(answered.answers_C))
        facts, facts_R = _numbered([self.fact(text, kind) for text, kind in answered.questions_R])
        # how often each fact was given each class: questions that are one fact are put together before keys are looked up
        facts_P, classes_P, counts_P = _summed(facts_R, answered.classes_R, answered.counts_R, num_classes)
        keys_F = [self.keys(fact) for fact in facts]
        keys, keys_P = _numbered([*chain.from_iterable([keys_F[fact] for fact in facts_P.tolist()])])
        lengths_P = np.fromiter(map(len, keys_F), np.int64, len(facts))[facts_P]
        found = _summed(keys_P, np.repeat(classes_P, lengths_P), np.repeat(counts_P, lengths_P), num_classes)
        self._best = {key: answered.answers_C[best] for key, best in zip(keys, _first_of_each(*found), strict=True)}

    def __call__(self, sample: Sample) -> str:
        """The answer to a question; "" where nothing was learned."""
        keys = self.keys(self.fact(sample.text, sample.groups.get("question_type", "")))
        return next((self._best[known] for known in keys if known in self._best), "")

    def fact(self, text: str, kind: str) -> Hashable:
        """All that matters here of a question and its question_type."""
        return text.lower().strip(), kind

    def keys(self, fact: Any) -> list[Hashable]:
        """What is looked up, from the most to the least specific."""
        text, kind = fact
        return [("question", text), ("type", kind), "all"]


class PrefixPrior(QuestionPrior):
    """The baseline by a question's first words: the longest of its prefixes, up to four words, that training knows.

    VQA's question types are such prefixes, and its authors' "per question type" prior is this one; here no type is needed.
    """

    longest = 4  # words

    def fact(self, text: str, kind: str) -> Hashable:
        return tuple(text.lower().rstrip("?!. ").split(maxsplit=self.longest)[: self.longest])

    def keys(self, fact: Any) -> list[Hashable]:
        return [fact[:number] for number in range(len(fact), -1, -1)]


def _numbered(values: list[Hashable]) -> tuple[list[Hashable], np.ndarray]:
    """The distinct values by first use, and of each value its number among them."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [*numbers], np.fromiter(map(numbers.__getitem__, values), np.int64, len(values))


def _summed(
    keys_P: np.ndarray, classes_P: np.ndarray, counts_P: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair of a key and a class once, in their order, with the sum of its counts."""
    pairs, which = np.unique(keys_P * num_classes + classes_P, return_inverse=True)
    sums = np.zeros(len(pairs), np.int64)
    np.add.at(sums, which.reshape(-1), counts_P)
    return *np.divmod(pairs, num_classes), sums


def _first_of_each(keys_P: np.ndarray, classes_P: np.ndarray, counts_P: np.ndarray) -> list[int]:
    """By key, all of which are there: the class that occurs most often with it, the first of several."""
    order = np.lexsort((classes_P, -counts_P, keys_P))
    _, firsts = np.unique(keys_P[order], return_index=True)
    return classes_P[order][firsts].tolist()


def _first(counts: Counter[str]) -> str:
    """The most frequent one, ties by the alphabet."""
    return min(counts, key=lambda spelling: (-counts[spelling], spelling))
