"""Whether a text belongs to an image, by the matching head. B pairs."""

from torch import Tensor

from pixelbert_plugin.asking.question import Question, Row
from pixelbert_plugin.asking.results import Match
from pixelbert_plugin.types import Batch


class MatchQuestion(Question[Match]):
    """Each pair by itself: its probability does not depend on which others are asked about."""

    method, text, asks = "match", "texts", "match"

    def results(self, values: Tensor, batch: Batch) -> list[Match]:
        return [
            Match(sample.text, probability, score)
            for sample, probability, score in zip(batch.samples, probabilities(values), values.tolist(), strict=True)
        ]

    def rows(self, result: Match) -> list[Row]:
        return [{"probability": result.probability, "score": result.score}]


def probabilities(log_odds: Tensor) -> list[float]:
    """Of log-odds, in double precision: float32 is 1 from 17 on."""
    return log_odds.double().sigmoid().tolist()
