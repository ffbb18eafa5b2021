"""NLVR2: is a statement about two images true? ("pair": paper, section 4.2). B statements with two images each."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import Task
from pixelbert_plugin.metrics.nlvr2 import accuracy_and_consistency, has_sentences, sentence_group
from pixelbert_plugin.tasks.log_odds import log_odds
from pixelbert_plugin.types import Batch, ModelOutput, Result, Sample

LABELS = ("False", "True")


@registry.register_task("nlvr2")
class Nlvr2Task(Task):
    """NLVR2: the statement with each image gives two [CLS] vectors, classified together; accuracy and consistency."""

    main_metric = "accuracy"
    processors = ("text", "image")
    images_per_sample = 2
    reads_logits_only = True

    def __init__(self, processors: dict[str, Any]):
        """Takes no options, and nothing of the processors."""

    def heads(self) -> dict[str, int]:
        return {"pair": len(LABELS)}

    def asked(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        return {"compare": lambda logits: log_odds(logits["pair"])}

    def prepare(self, batch: Batch, seeds: list[int]) -> None:
        """`pair`: B int64, 1 for a true statement; -100 where a split has no labels."""
        where = f"task={registry.place_of(self).name}"
        for sample in batch.samples:
            if len(sample.images) != 2:
                raise UserError(f"{where}: sample {sample.sample_id} has {len(sample.images)} image(s), not two")
            if sample.answer not in (None, *LABELS):
                raise UserError(f"{where}: sample {sample.sample_id}: its label is {sample.answer!r}, not 'False' or 'True'")
        labels = [-100 if sample.answer is None else LABELS.index(sample.answer) for sample in batch.samples]
        batch.targets["pair"] = torch.tensor(labels)

    def loss(self, output: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        losses_B = F.cross_entropy(output.logits["pair"].float(), batch.targets["pair"], reduction="none")
        return {"pair": (losses_B * batch.weights).sum()}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"pair": batch.weights.sum()}

    def predict(self, output: ModelOutput, batch: Batch) -> list[Result]:
        results = []
        for sample, label in zip(batch.samples, output.logits["pair"].argmax(1).tolist(), strict=True):
            result = Result(sample, LABELS[label], sample.answer)
            if sample.answer is not None:
                result.scores["accuracy"] = float(result.prediction == sample.answer)
            results.append(result)
        return results

    @staticmethod
    def read_predictions(config: None, text: str, samples: Mapping[str, Sample]) -> list[Result]:
        results = []
        for identifier, prediction in csv.reader(io.StringIO(text)):
            sample = samples[identifier]
            scores = {} if sample.answer is None else {"accuracy": float(prediction == sample.answer)}
            results.append(Result(sample, prediction, sample.answer, scores))
        return results

    @staticmethod
    def terms(results: list[Result]) -> dict[str, dict[int, tuple[float, float]]]:
        """`accuracy` of each statement; `consistency` of each sentence, counted where it stands first, where ids have NLVR2's
        form."""
        accuracy = {place: (result.scores["accuracy"], 1.0) for place, result in enumerate(results) if result.scores}
        ids = {place: str(results[place].sample.sample_id) for place in accuracy}
        if not has_sentences(ids.values()):
            return {"accuracy": accuracy}
        groups = defaultdict(list)
        for place, identifier in ids.items():
            groups[sentence_group(identifier)].append(place)
        consistency = {places[0]: (float(all(accuracy[each][0] for each in places)), 1.0) for places in groups.values()}
        return {"accuracy": accuracy, "consistency": consistency}

    def metrics(self, results: list[Result]) -> dict[str, float]:
        labelled = {str(result.sample.sample_id): bool(result.scores["accuracy"]) for result in results if result.scores}
        if labelled and not has_sentences(labelled):  # of a table of one's own
            return {"accuracy": sum(labelled.values()) / len(labelled)}
        return accuracy_and_consistency(labelled) if labelled else {}

    def predictions(self, results: list[Result]) -> tuple[str, str]:
        """The official evaluation's CSV: identifier,prediction, without a header."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows((result.sample.sample_id, result.prediction) for result in results)
        return ".csv", text.getvalue()
