"""What a split's texts and answers are like, found before training: what is cut, left out, or can never be right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from pixelbert_plugin.data.pairs import Pairs, labels, texts
from pixelbert_plugin.processors.answers import AnswerProcessor
from pixelbert_plugin.processors.text import BertTokenizer
from pixelbert_plugin.types import Sample

LOW_COVERAGE = 0.8  # of the questions; VQA 2.0's 3,129 answers cover more than 0.95
NUM_NAMED = 3  # images that are named
BLANK_BYTES = 16  # a longer text is not looked at for being blank


@dataclass(frozen=True)
class Remark:
    """One thing that was looked at."""

    what: str
    is_warning: bool
    detail: str  # what was found, in words


def survey(samples: Sequence[Sample], text: Any | None, answers: Any | None) -> Iterator[Remark]:
    """Remarks on a data set's split; `text` and `answers` are processors with their vocabularies, None where there are none.

    Each sample's own text counts once: neither negatives nor repeats of an epoch do.
    """
    total = len(samples)
    left_out = getattr(samples, "left_out", [])
    if left_out:
        named = ", ".join(islice(left_out, NUM_NAMED)) + (", …" if len(left_out) > NUM_NAMED else "")
        yield Remark("images without texts", True, f"{len(left_out):,} are left out, of retrieval's gallery too: {named}")
    blank = sum(not short.strip() for short in _texts(samples, 0, BLANK_BYTES))
    if blank:
        yield Remark("empty texts", True, f"{blank:,} of {total:,} have no word")
    if text is not None:
        limit = text.config.max_length
        cut = sum(text(long)[1] for long in _texts(samples, _shortest_that_may_be_cut(text)))
        detail = f"{cut:,} of {total:,} are longer than processors.text.params.max_length={limit} tokens"
        yield Remark("long texts", cut > 0, f"{detail}{', and are cut' if cut else ''}")
    if isinstance(answers, AnswerProcessor):
        yield from _answers(samples, answers)


def _answers(samples: Sequence[Sample], answers: AnswerProcessor) -> Iterator[Remark]:
    labelled = blank = covered = 0
    ceiling = 0.0
    for given, _ in labels(samples):
        if given:
            labelled += 1
            blank += not any(map(str.strip, given))
            covered += answers.covers(given)
            ceiling += answers.ceiling(given)
    if not labelled:
        return
    share = covered / labelled
    remedy = "is it of this data set?" if answers.config.vocabulary else "lower processors.answers.params.min_occurrences"
    yield Remark(
        "answer vocabulary",
        share < LOW_COVERAGE or len(answers) < 2,
        f"{len(answers):,} answers; {100 * share:.1f} % of {labelled:,} questions have one of them, and the best prediction "
        f"earns {100 * ceiling / labelled:.1f} %{'' if share >= LOW_COVERAGE else f'; {remedy}'}",
    )
    if blank:
        yield Remark("empty answers", True, f"{blank:,} of {labelled:,} questions have no answer with a word")
    if labelled < len(samples):
        yield Remark("answers", True, f"{len(samples) - labelled:,} of {len(samples):,} questions have none")


def _shortest_that_may_be_cut(text: Any) -> int:
    """Bytes. A word piece takes a byte or more, so most texts need not be read; of another processor nothing is known."""
    return text.config.max_length - 1 if isinstance(text, BertTokenizer) else 0  # with [CLS] and [SEP]


def _texts(samples: Sequence[Sample], shortest: int, longest: int | None = None) -> Iterator[str]:
    """The texts that have so many bytes of UTF-8; of columns without a look at the others."""
    if isinstance(samples, Pairs):
        lengths_M = np.diff(samples.texts.offsets_M1)
        is_wanted_M = lengths_M >= shortest
        if longest is not None:
            is_wanted_M &= lengths_M <= longest
        return (samples.texts.item(row) for row in np.flatnonzero(is_wanted_M).tolist())
    most = float("inf") if longest is None else longest
    return (text for text in texts(samples) if shortest <= len(text.encode()) <= most)
