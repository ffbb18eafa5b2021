"""Visual question answering as classification over answers (paper, section 4.1). B questions, A answers, I images."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.interfaces import Task, TrainSamples
from pixelbert_plugin.metrics.vqa import vqa_accuracy
from pixelbert_plugin.processors.answers import AnswerProcessor
from pixelbert_plugin.tasks.options import VqaConfig
from pixelbert_plugin.tasks.question_prior import PrefixPrior, QuestionPrior, count_answered
from pixelbert_plugin.types import Batch, ModelOutput, Result, Sample


@registry.register_task("vqa")
class VqaTask(Task):
    """VQA: binary cross-entropy on soft scores; VQA accuracy, by kind of question, beside what the question alone gives.

    `question_prior` and `prefix_prior` are the accuracies of the answers most often given to the same question, and
    to questions with the same first words; `ceiling` is that of the best prediction the answer vocabulary allows.

    With `image_answers_weight` > 0 a second head on the CNN's mean pixel says which answers occur among the image's
    questions in the batch. It gives a CNN without ImageNet weights a short path to the answers, which it would otherwise
    have to learn through an untrained transformer. It serves training only: predictions never see it.
    """

    Config = VqaConfig
    main_metric = "accuracy"
    processors = ("text", "image", "answers")
    images_per_sample, needs_answers = 1, True
    reads_logits_only = True

    def __init__(self, config: VqaConfig, processors: dict[str, Any]):
        self.config = config
        self.answers: AnswerProcessor = processors["answers"]
        self.metric = registry.get("metric", config.metric, registry.key_of(config, "metric"))
        self.prior: QuestionPrior | None = None
        self.prefix_prior: PrefixPrior | None = None

    def heads(self) -> dict[str, int]:
        heads = {"answers": len(self.answers)}
        return heads | ({"image_answers": len(self.answers)} if self.config.image_answers_weight else {})

    def asked(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        return {"answer": self.probabilities}

    def explained(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        return {"answer": lambda logits: logits["answers"].float()}

    def probabilities(self, logits: dict[str, Tensor]) -> Tensor:
        """B A float32 in 0…1: each answer's own sigmoid, as the loss has it; of a question they need not add up to 1."""
        return logits["answers"].float().sigmoid()

    def prepare(self, batch: Batch, seeds: list[int]) -> None:
        """`answers`: B A float32 soft scores; zeros where a split has no answers."""
        none = torch.zeros(len(self.answers))
        rows = [self.answers.scores(sample.answers) if sample.answers else none for sample in batch.samples]
        batch.targets["answers"] = torch.stack(rows)

    def fit(self, train_samples: TrainSamples) -> None:
        answered = count_answered(train_samples)
        self.prior, self.prefix_prior = QuestionPrior(answered), PrefixPrior(answered)

    def loss(self, output: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """`answers`: summed over answers and questions. `image_answers`: summed over answers and images."""
        targets_BA, weights_B = batch.targets["answers"], batch.weights
        losses_BA = F.binary_cross_entropy_with_logits(output.logits["answers"].float(), targets_BA, reduction="none")
        parts = {"answers": (losses_BA.sum(1) * weights_B).sum()}
        if self.config.image_answers_weight:
            targets_IA, weights_I = _by_image(batch)
            logits_IA = output.logits["image_answers"].float()
            losses_IA = F.binary_cross_entropy_with_logits(logits_IA, targets_IA, reduction="none")
            parts["image_answers"] = self.config.image_answers_weight * (losses_IA.sum(1) * weights_I).sum()
        return parts

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = {"answers": batch.weights.sum()}
        if self.config.image_answers_weight:
            counts["image_answers"] = _by_image(batch)[1].sum()
        return counts

    def predict(self, output: ModelOutput, batch: Batch) -> list[Result]:
        best_B = output.logits["answers"].argmax(dim=1).tolist()
        results = []
        for sample, index in zip(batch.samples, best_B, strict=True):
            result = Result(sample, self.answers.spellings[index], sample.answer)
            if sample.answers:
                result.scores["accuracy"] = self.metric(result.prediction, sample.answers)
                if self.metric is vqa_accuracy:  # of another rule nobody knows the best prediction
                    result.scores["ceiling"] = self.answers.ceiling(sample.answers)
                if self.prior is not None and self.prefix_prior is not None:
                    result.scores["question_prior"] = self.metric(self.prior(sample), sample.answers)
                    result.scores["prefix_prior"] = self.metric(self.prefix_prior(sample), sample.answers)
            results.append(result)
        return results

    @staticmethod
    def read_predictions(config: VqaConfig, text: str, samples: Mapping[str, Sample]) -> list[Result]:
        """Questions with answers are scored by the task's metric; what other questions alone give is no part of it."""
        metric, results = registry.get("metric", config.metric), []
        for row in json.loads(text):
            sample = samples[str(row["question_id"])]
            scores = {"accuracy": metric(row["answer"], sample.answers)} if sample.answers else {}
            results.append(Result(sample, row["answer"], sample.answer, scores))
        return results

    def metrics(self, results: list[Result]) -> dict[str, float]:
        """Mean scores over all questions, and by each kind: `accuracy[answer_type=number]`."""
        columns: dict[str, list[float]] = defaultdict(list)
        for result in results:
            for metric, score in result.scores.items():
                columns[metric].append(score)
                for group, kind in result.sample.groups.items():
                    columns[f"{metric}[{group}={kind}]"].append(score)
        overall = {name: sum(scores) / len(scores) for name, scores in columns.items()}
        return dict(sorted(overall.items(), key=lambda item: ("[" in item[0], item[0])))

    def predictions(self, results: list[Result]) -> tuple[str, str]:
        """The official result file: question_id and answer, one row per question."""
        rows = [{"question_id": result.sample.sample_id, "answer": result.prediction} for result in results]
        return ".json", json.dumps(rows, ensure_ascii=False) + "\n"


def _by_image(batch: Batch) -> tuple[Tensor, Tensor]:
    """I A: the best score of each answer over the image's questions in the batch. I: 0 for images of no weight."""
    images = len(batch.image_seeds)
    targets_BA = batch.targets["answers"]
    index_B = batch.image_index[:, 0]
    targets_IA = targets_BA.new_zeros(images, targets_BA.shape[1])
    targets_IA.scatter_reduce_(0, index_B[:, None].expand_as(targets_BA), targets_BA, "amax")
    weights_I = batch.weights.new_zeros(images).scatter_reduce_(0, index_B, batch.weights, "amax")
    return targets_IA, weights_I
