"""Answer processor: the vocabulary of answers and each question's soft scores over it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.metrics.vqa import normalize_answer, soft_scores
from pixelbert_plugin.schema import FilePath, require


@dataclass(kw_only=True)
class AnswersConfig:
    min_occurrences: int = 9  # answers seen less often as a question's main answer are left out (paper: 9, giving 3129)
    splits: list[str] = field(default_factory=lambda: ["train"])  # where occurrences are counted (paper: train and val)
    vocabulary: FilePath | None = None  # a text file with one answer per line, instead of counting

    def check(self) -> None:
        require(self, "min_occurrences", low=1)


@registry.register_processor("answers")
class AnswerProcessor:
    """Answers by index: counted with a threshold or read from a file; soft scores by the VQA rule."""

    Config = AnswersConfig

    def __init__(self, config: AnswersConfig):
        self.config = config
        self._set([] if config.vocabulary is None else _read(Path(config.vocabulary)))

    @property
    def needs_fit(self) -> bool:
        """True until a vocabulary is counted (`fit`) or loaded."""
        return not self.answers

    def fit(self, main_answers: Iterable[str]) -> None:
        """Count normalised main answers; most frequent first, ties by the alphabet. Raises UserError if none is left."""
        counts = Counter(map(normalize_answer, main_answers))
        kept = [answer for answer, count in counts.items() if count >= self.config.min_occurrences]
        if not kept:
            most = max(counts.values(), default=0)
            raise UserError(
                f"processors.answers.params.min_occurrences={self.config.min_occurrences}: no answer occurs so often "
                f"in {', '.join(self.config.splits)} (the most frequent one {most} times); lower it"
            )
        self._set(sorted(kept, key=lambda answer: (-counts[answer], answer)))

    def __len__(self) -> int:
        return len(self.answers)

    def scores(self, answers: tuple[str, ...]) -> Tensor:
        """A float32: the soft score of every answer in the vocabulary, 0 for those nobody gave."""
        scores_A = torch.zeros(len(self.answers))
        for answer, score in soft_scores(tuple(map(normalize_answer, answers))).items():
            index = self._index.get(answer)
            if index is not None:
                scores_A[index] = score
        return scores_A

    def state_dict(self) -> dict[str, Any]:
        return {"answers": self.answers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._set(state["answers"])

    def _set(self, answers: list[str]) -> None:
        self.answers = answers
        self._index = {answer: index for index, answer in enumerate(answers)}


def _read(path: Path) -> list[str]:
    key = "processors.answers.params.vocabulary"
    try:
        answers = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}={str(path)!r}: cannot be read ({error})") from error
    if not answers or len(set(answers)) < len(answers):
        raise UserError(f"{key}={str(path)!r}: is empty or holds an answer twice; one answer per line")
    return answers
