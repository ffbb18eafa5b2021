"""A statement about two images, as NLVR2 has them. B statements."""

from torch import Tensor

from pixelbert_plugin.asking.match import probabilities
from pixelbert_plugin.asking.question import Question, Row
from pixelbert_plugin.asking.results import Comparison
from pixelbert_plugin.types import Batch


class CompareQuestion(Question[Comparison]):
    """Whether the statement is true of the left and the right image."""

    method, images, text, asks = "compare", ("left", "right"), "statement", "compare"

    def results(self, values: Tensor, batch: Batch) -> list[Comparison]:
        pairs = zip(batch.samples, probabilities(values), strict=True)
        return [Comparison(sample.text, probability) for sample, probability in pairs]

    def rows(self, result: Comparison) -> list[Row]:
        return [{"label": result.label, "probability": result.probability}]
