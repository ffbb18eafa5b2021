"""The question-only baselines of VQA: what is answered most often where only the question is known.

Counted over half a million questions at once. R rows: distinct questions with an answer; K keys: what is known of questions,
such as their first words; P pairs of a row and a key of its question; C classes of answers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np

from pixelbert_plugin.metrics.vqa import one_line
from pixelbert_plugin.processors.answers import answer_key
from pixelbert_plugin.types import Sample

Row = tuple[str, str, str]  # a question, its question_type or "", its main answer


def count_answered(train_samples: Iterable[Sample]) -> Counter[Row]:
    """How often each training question was given each answer; those without an answer are passed over."""
    return Counter(
        (sample.text, sample.groups.get("question_type", ""), sample.answer)
        for sample in train_samples
        if sample.answer is not None
    )


class QuestionPrior:
    """The answer most often given to the same question in training, image unseen.

    An unseen question gets the most frequent answer of its question_type, or of all training questions. Answers are counted
    by class, as the vocabulary's are, and given in the class's most frequent spelling. Ties go by the alphabet.
    """

    def __init__(self, answered: Mapping[Row, int]):
        answers = {answer: answer_key(answer) for _, _, answer in answered}
        spellings: dict[str, Counter[str]] = defaultdict(Counter)  # by class
        for (_, _, answer), count in answered.items():
            spellings[answers[answer]][one_line(answer)] += count
        classes = sorted(spellings)
        number_of = {name: number for number, name in enumerate(classes)}
        numbers = {answer: number_of[name] for answer, name in answers.items()}

        keys: dict[tuple[str, str], int] = {}  # numbered
        keys_of: dict[tuple[str, str], list[int]] = {}  # of a question and its type
        for text, kind, _ in answered:
            if (text, kind) not in keys_of:
                keys_of[text, kind] = [keys.setdefault(key, len(keys)) for key in self.keys(text, kind)]
        keys_R = [keys_of[text, kind] for text, kind, _ in answered]
        lengths_R = [*map(len, keys_R)]
        keys_P = np.fromiter(chain.from_iterable(keys_R), np.int64)
        classes_P = np.repeat(np.fromiter((numbers[answer] for _, _, answer in answered), np.int64), lengths_R)
        counts_P = np.repeat(np.fromiter(answered.values(), np.int64), lengths_R)
        best_K = _most_frequent(keys_P, classes_P, counts_P, len(keys), len(classes))
        named = [_first(spellings[name]) for name in classes]
        self._best = {key: named[number] for key, number in zip(keys, best_K.tolist(), strict=True)}

    def __call__(self, sample: Sample) -> str:
        """The answer to a question; "" where nothing was learned."""
        keys = self.keys(sample.text, sample.groups.get("question_type", ""))
        return next((self._best[known] for known in keys if known in self._best), "")

    def keys(self, text: str, kind: str) -> list[tuple[str, str]]:
        """What is known of a question, from the most to the least specific."""
        return [("question", text.lower().strip()), ("type", kind), ("all", "")]


class PrefixPrior(QuestionPrior):
    """The baseline by a question's first words: the longest of its prefixes, up to four words, that training knows.

    VQA's question types are such prefixes, and its authors' "per question type" prior is this one; here no type is needed.
    """

    longest = 4  # words

    def keys(self, text: str, kind: str) -> list[tuple[str, str]]:
        words = text.lower().rstrip("?!. ").split(maxsplit=self.longest)[: self.longest]
        return [("prefix", " ".join(words[:number])) for number in range(len(words), -1, -1)]


def _most_frequent(
    keys_P: np.ndarray, classes_P: np.ndarray, counts_P: np.ndarray, num_keys: int, num_classes: int
) -> np.ndarray:
    """K: of each key, the class that occurs most often with it, the first of several."""
    pairs, which = np.unique(keys_P * num_classes + classes_P, return_inverse=True)
    sums = np.zeros(len(pairs), np.int64)
    np.add.at(sums, which.reshape(-1), counts_P)
    keys, classes = np.divmod(pairs, max(1, num_classes))
    order = np.lexsort((classes, -sums, keys))
    return classes[order][np.searchsorted(keys[order], np.arange(num_keys))]


def _first(counts: Counter[str]) -> str:
    """The most frequent one, ties by the alphabet."""
    return min(counts, key=lambda spelling: (-counts[spelling], spelling))
