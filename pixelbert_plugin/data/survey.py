"""What a split's texts and answers are like, found before training: what is cut, left out, or can never be right."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pixelbert_plugin.data.known_answers import is_known_M
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.interfaces import AnswersProcessor, TextProcessor

LOW_COVERAGE = 0.8  # of the questions; VQA 2.0's 3,129 answers cover more than 0.95
NUM_NAMED = 3  # images that are named
BLANK_BYTES = 16  # a longer text is not looked at for being blank


@dataclass(frozen=True)
class Remark:
    """One thing that was looked at."""

    what: str
    is_warning: bool
    detail: str  # what was found, in words


def survey(
    samples: Samples, text: TextProcessor | None, answers: AnswersProcessor | None, only_known_answers: bool = False
) -> Iterator[Remark]:
    """Remarks on a data set's split; `text` and `answers` are processors with their vocabularies, None where there are none.

    Each sample's own text counts once: neither negatives nor repeats of an epoch do.
    """
    total = len(samples)
    left_out = samples.left_out
    if len(left_out):
        named = ", ".join(islice(left_out, NUM_NAMED)) + (", …" if len(left_out) > NUM_NAMED else "")
        yield Remark("images without texts", True, f"{len(left_out):,} are left out, of retrieval's gallery too: {named}")
    blank = sum(not short.strip() for short in _texts(samples, 0, BLANK_BYTES))
    if blank:
        yield Remark("empty texts", True, f"{blank:,} of {total:,} have no word")
    if text is not None:
        cut = text.count_cut(_texts(samples, text.shortest_cut))
        limit = "it takes" if text.max_length is None else f"processors.text.params.max_length={text.max_length} tokens"
        detail = f"{cut:,} of {total:,} are longer than {limit}"
        yield Remark("long texts", cut > 0, f"{detail}{', and are cut' if cut else ''}")
    if answers is not None and only_known_answers:
        known, total = int(is_known_M(samples, answers).sum()), len(samples)
        yield Remark("known answers", known == 0, f"{known:,} of {total:,} questions have one; training leaves out the others")
    elif answers is not None:
        yield from _answers(samples, answers)


def seen_in_training(samples: Samples, trained: set[str]) -> Iterator[Remark]:
    """A remark where images of a split that is evaluated are also the training's, whose `image_names` are `trained`."""
    own = samples.image_names()
    shared = sorted(own & trained)
    if shared:
        named = ", ".join(shared[:NUM_NAMED]) + (", …" if len(shared) > NUM_NAMED else "")
        detail = (
            f"{len(shared):,} of {len(own):,} images are the train split's too, so what is measured was learned from: {named}"
        )
        yield Remark("images of train", True, detail)


def _answers(samples: Samples, answers: AnswersProcessor) -> Iterator[Remark]:
    labelled = blank = covered = 0
    ceiling = 0.0
    for given, count in samples.answer_sets():
        labelled += count
        blank += 0 if any(map(str.strip, given)) else count
        covered += count * answers.covers(given)
        ceiling += count * answers.ceiling(given)
    if not labelled:
        return
    share = covered / labelled
    yield Remark(
        "answer vocabulary",
        share < LOW_COVERAGE or len(answers) < 2,
        f"{len(answers):,} answers; {100 * share:.1f} % of {labelled:,} questions have one of them, and the best prediction "
        f"earns {100 * ceiling / labelled:.1f} %{'' if share >= LOW_COVERAGE or not answers.remedy else f'; {answers.remedy}'}",
    )
    if blank:
        yield Remark("empty answers", True, f"{blank:,} of {labelled:,} questions have no answer with a word")
    if labelled < len(samples):
        yield Remark("answers", True, f"{len(samples) - labelled:,} of {len(samples):,} questions have none")


def _texts(samples: Samples, shortest: int, longest: int | None = None) -> Iterator[str]:
    """The texts that have so many bytes of UTF-8, without a look at the others."""
    is_wanted_M = samples.text_bytes_M >= shortest
    if longest is not None:
        is_wanted_M &= samples.text_bytes_M <= longest
    return samples.texts(is_wanted_M)
