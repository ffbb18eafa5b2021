"""Evaluation of the splits of a run, while training and at its end. All processes take part."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

from pixelbert_plugin import registry
from pixelbert_plugin.build import versions
from pixelbert_plugin.config.options import EvaluationConfig
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.vocabularies import processor_states
from pixelbert_plugin.evaluation.baseline import Baseline
from pixelbert_plugin.evaluation.evaluator import SplitEvaluation, evaluate
from pixelbert_plugin.evaluation.retrieval import evaluate_matrix, num_scored, save_matrix, score_all_pairs
from pixelbert_plugin.parts import Parts
from pixelbert_plugin.registry.schema import Component
from pixelbert_plugin.system.progress import TimeLeft
from pixelbert_plugin.tasks.base import MatchingTask
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)


class SplitEvaluator:
    """Evaluates the model of `parts` as it is, each time it is asked. `components` are what it was built from."""

    def __init__(self, parts: Parts, options: EvaluationConfig, components: Mapping[str, Component]):
        self.parts, self.options, self.components = parts, options, components
        self.baseline = Baseline(parts.task, parts.data.answering)
        self._loaders: dict[tuple[str, str], Loader] = {}

    def loader(self, split: str, dataset: str) -> Loader:
        """The loader of one data set's split, made once."""
        key = split, dataset
        if key not in self._loaders:
            single, scores_all_pairs = self.parts.data.single(split, dataset), self.parts.task.scores_all_pairs
            self._loaders[key] = self.parts.loaders.of(single, with_negatives=not scores_all_pairs)
        return self._loaders[key]

    @property
    def batch_size(self) -> int:
        """Samples per forward."""
        training = self.parts.training
        pairs = self.options.batch_size or training.micro_batch_size or training.batch_size
        return max(1, pairs // self.parts.task.pairs_per_sample)

    def evaluate(self, split: str, is_final: bool = False, with_loss: bool = False) -> dict[str, SplitEvaluation]:
        """Evaluate on a split, by data set; `is_final` once training is over. `with_loss`: the loss too, where labels are."""
        parts, mixture = self.parts, self.parts.data.splits[split]
        self.baseline.learn_for(mixture)
        found = {}
        for dataset in mixture.parts:
            if parts.task.scores_all_pairs:
                found[dataset] = self._score(split, dataset, is_final)
            else:
                loader = self.loader(split, dataset)
                found[dataset] = evaluate(
                    parts.model,
                    parts.task,
                    loader,
                    self.batch_size,
                    parts.precision,
                    parts.job.processes,
                    with_loss=with_loss and has_labels(mixture.parts[dataset], parts.data.splits.get("train")),
                )
        return found

    def validate(self) -> dict[str, SplitEvaluation]:
        """Evaluate on val while training, by "val/dataset", with the loss."""
        return {f"val/{dataset}": evaluation for dataset, evaluation in self.evaluate("val", with_loss=True).items()}

    def _score(self, split: str, dataset: str, is_final: bool) -> SplitEvaluation:
        """Score every pair. At the end of a run finished blocks outlive a kill, and the matrix is written."""
        parts, job, loader = self.parts, self.parts.job, self.loader(split, dataset)
        task = cast(MatchingTask, parts.task)
        name = parts.data.own_name(split, dataset)
        blocks = job.folder.path / "scores" / name.replace("/", "_") if is_final else None
        limit = task.max_test_images if is_final else task.max_val_images if split == "val" else None
        counts = num_scored(loader, limit)
        if is_final:
            self._announce(name, counts)
        progress = TimeLeft(job.console, name, has_bar=is_final) if job.processes.is_main else None
        kept = (blocks, limit, score_settings(self.components, parts.processors), progress)
        matrix = score_all_pairs(parts.model, task, loader, self.batch_size, parts.precision, job.processes, *kept)
        found: list[SplitEvaluation] = []

        def finish() -> dict[str, float]:
            evaluation = evaluate_matrix(task, loader, matrix)
            evaluation = replace(evaluation, metrics=evaluation.metrics | counts)
            found.append(evaluation)
            if is_final:  # the metrics first: the matrix may be too large for the disk
                job.folder.add_results({f"{name}/{key}": value for key, value in evaluation.metrics.items()})
                if self.options.predict:
                    save_matrix(matrix, loader, job.folder.path / "predictions" / f"{name.replace('/', '_')}.safetensors")
            return evaluation.metrics

        metrics = job.processes.on_main(finish)
        return found[0] if found else SplitEvaluation(metrics)

    def _announce(self, name: str, counts: dict[str, float]) -> None:
        """Say what will be scored before it takes its time, and write it down."""
        job = self.parts.job
        images, texts = (int(counts[key]) for key in ("num_images", "num_texts"))
        job.console.out(f"{name}: scoring {images:,} images × {texts:,} texts = {images * texts:,} pairs", highlight=False)
        if "num_images_in_split" in counts:
            total = int(counts["num_images_in_split"])
            option = registry.place_of(self.parts.task).key("max_test_images")
            logger.warning("%s: only the first %d of %d images are scored (%s)", name, images, total, option)
        job.processes.on_main(lambda: job.folder.add_results({f"{name}/{key}": value for key, value in counts.items()}))


def has_labels(samples: Samples, train: Mixture | None) -> bool:
    """Whether the samples have answers, as far as the first one tells, if those that are trained on have."""
    return _is_labelled(samples[0]) or train is None or not any(_is_labelled(part[0]) for part in train.parts.values())


def _is_labelled(sample: Sample) -> bool:
    return bool(sample.answers) or sample.answer is not None


def score_settings(components: Mapping[str, Component], processors: dict[str, Any]) -> str:
    """What scores depend on beside weights, pairs and images: kept ones are used for the same only."""
    options = {name: asdict(component) for name, component in components.items()}
    return repr((options, processor_states(processors), versions()))
