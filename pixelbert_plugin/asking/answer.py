"""A question about an image, as VQA has them. B questions, A answers of the vocabulary, K of them given."""

from torch import Tensor

from pixelbert_plugin.asking.question import Question, Row
from pixelbert_plugin.asking.results import Answer, Answers
from pixelbert_plugin.types import Batch


class AnswerQuestion(Question[Answers]):
    """The most probable answers of the vocabulary."""

    method, text, asks = "answer", "question", "answer"

    def shape(self, batch: Batch) -> tuple[int, ...]:
        return len(batch), len(self.model.processors["answers"])

    def results(self, values: Tensor, batch: Batch) -> list[Answers]:
        spellings = self.model.processors["answers"].spellings
        values_BK, indices_BK = values.sort(dim=1, descending=True, stable=True)  # of equal ones the first, as argmax has it
        found = []
        for sample, row, places in zip(batch.samples, values_BK[:, : self.top_k], indices_BK[:, : self.top_k], strict=True):
            answers = zip(places.tolist(), row.tolist(), strict=True)
            found.append(Answers(sample.text, tuple(Answer(spellings[place], value) for place, value in answers)))
        return found

    def rows(self, result: Answers) -> list[Row]:
        return [{"answer": answer.text, "probability": answer.probability} for answer in result.answers]
