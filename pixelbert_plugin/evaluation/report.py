"""Evaluation of the splits of a run, while training and at its end: metrics, predictions, tables. All processes take part."""

import logging
from collections import Counter
from dataclasses import replace
from typing import Any

from pixelbert_plugin import config as configuration
from pixelbert_plugin.build import build_loader, versions
from pixelbert_plugin.data.fingerprint import Fingerprint, changes
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.survey import survey
from pixelbert_plugin.data.vocabularies import build_processor, processor_states
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.evaluation.evaluator import SplitEvaluation, evaluate
from pixelbert_plugin.evaluation.retrieval import evaluate_matrix, num_scored, save_matrix, score_all_pairs
from pixelbert_plugin.evaluation.table import results_table
from pixelbert_plugin.parts import Parts
from pixelbert_plugin.system.progress import TimeLeft

logger = logging.getLogger(__name__)


def tell_survey(parts: Parts) -> None:
    """Say what of the data is cut, left out or can never be right, before time is spent on it."""

    def tell() -> None:
        for split, mixture in parts.data.items():
            for name, samples in mixture.parts.items():
                for remark in survey(samples, parts.processors["text"], parts.processors.get("answers")):
                    line = f"{split}/{name}: {remark.what}: {remark.detail}"
                    if remark.is_warning:
                        logger.warning("%s", line)
                    elif remark.what == "answer vocabulary":
                        parts.console.out(line, highlight=False)

    parts.processes.on_main(tell)


def evaluate_split(parts: Parts, split: str, is_final: bool = False) -> dict[str, SplitEvaluation]:
    """Evaluate the model as it is on a split, by "split/dataset"; `is_final` once training is over."""
    config = parts.config
    pairs = config.evaluation.batch_size or config.training.micro_batch_size or config.training.batch_size
    batch_size = max(1, pairs // parts.task.pairs_per_sample)
    mixture = parts.data[split]
    ensure_fit(parts, mixture)
    evaluations = {}
    for name, samples in mixture.parts.items():
        key = f"{split}/{name}"
        if key not in parts.loaders:
            single = Mixture(split, {name: samples}, mixture.on_bad_image)
            shared = (parts.task, parts.processors, parts.device, parts.processes, parts.stop)
            parts.loaders[key] = build_loader(config, single, *shared)
        if parts.task.scores_all_pairs:
            evaluations[key] = score_split(parts, split, key, batch_size, is_final)
        else:
            loader = parts.loaders[key]
            evaluations[key] = evaluate(parts.model, parts.task, loader, batch_size, parts.precision, parts.processes)
    return evaluations


def score_split(parts: Parts, split: str, key: str, batch_size: int, is_final: bool) -> SplitEvaluation:
    """Score every pair of a split. At the end of a run finished blocks outlive a kill, and the matrix is written."""
    loader, name, task = parts.loaders[key], own_name(parts, key), parts.task
    blocks = parts.folder.path / "scores" / name.replace("/", "_") if is_final else None
    limit = task.max_test_images if is_final else task.max_val_images if split == "val" else None
    counts = num_scored(loader, limit)
    if is_final:
        announce(parts, name, counts)
    progress = TimeLeft(parts.console, name, has_bar=is_final) if parts.processes.is_main else None
    settings = score_settings(parts)
    with_pairs = (parts.model, task, loader, batch_size, parts.precision, parts.processes)
    matrix = score_all_pairs(*with_pairs, blocks, limit, settings, progress)
    found: list[SplitEvaluation] = []

    def finish() -> dict[str, float]:
        evaluation = evaluate_matrix(task, loader, matrix)
        evaluation = replace(evaluation, metrics=evaluation.metrics | counts)
        found.append(evaluation)
        if is_final:  # the metrics first: the matrix may be too large for the disk
            parts.folder.add_results({f"{name}/{key}": value for key, value in evaluation.metrics.items()})
            if parts.config.evaluation.predict:
                save_matrix(matrix, loader, parts.folder.path / "predictions" / f"{name.replace('/', '_')}.safetensors")
        return evaluation.metrics

    metrics = parts.processes.on_main(finish)
    return found[0] if found else SplitEvaluation(metrics)


def announce(parts: Parts, name: str, counts: dict[str, float]) -> None:
    """Say what will be scored before it takes its time, and write it down."""
    images, texts = (int(counts[key]) for key in ("num_images", "num_texts"))
    parts.console.out(f"{name}: scoring {images:,} images × {texts:,} texts = {images * texts:,} pairs", highlight=False)
    if "num_images_in_split" in counts:
        total = int(counts["num_images_in_split"])
        option = f"task_config.{parts.config.task}.max_test_images"
        logger.warning("%s: only the first %d of %d images are scored (%s)", name, images, total, option)
    parts.processes.on_main(lambda: parts.folder.add_results({f"{name}/{key}": value for key, value in counts.items()}))


def score_settings(parts: Parts) -> str:
    """What scores depend on beside weights, pairs and images: kept ones are used for the same only."""
    values = configuration.dump(parts.config)
    chosen = [values[key] for key in ("model", "model_config", "task", "task_config", "processors")]
    return repr((*chosen, processor_states(parts.processors), versions()))


def own_name(parts: Parts, key: str) -> str:
    """ "test-dev/vqa2" for "test/vqa2" where `use` chose so: the results and files of two test sets must not mix."""
    split, dataset = key.split("/")
    return f"{parts.builders[dataset].source_split(split)}/{dataset}"


def ensure_fit(parts: Parts, mixture: Mixture) -> None:
    """Let the task learn its baseline, if it has one, before a split with answers is evaluated."""
    if not parts.is_task_fit and parts.task.fit is not None and any(samples[0].answers for samples in mixture.parts.values()):
        fit_baseline(parts)


def fit_baseline(parts: Parts) -> None:
    """Let the task learn its baseline from the training split; an evaluation alone may lack that split's files."""
    parts.is_task_fit = True
    try:
        parts.task.fit(parts.data.get("train") or Mixture.build(parts.builders, "train"))
    except UserError as error:
        logger.warning("the question-only prior is left out: %s", error)


def report(parts: Parts, split: str) -> dict[str, float]:
    """Evaluate a split, write its predictions and metrics, print its table. Returns metrics by "split/dataset/metric"."""
    results: dict[str, float] = {}
    for key, evaluation in evaluate_split(parts, split, is_final=True).items():
        name = own_name(parts, key)
        results |= {f"{name}/{metric}": value for metric, value in evaluation.metrics.items()}
        if parts.config.evaluation.predict and parts.task.predictions is not None:
            parts.processes.on_main(lambda name=name, evaluation=evaluation: write_predictions(parts, name, evaluation))
        tell_skipped(parts, parts.loaders[key], name)
    for table in results_table(results):
        parts.console.print(table)
    parts.processes.on_main(
        lambda: parts.folder.add_results(results)
    )  # at once: a failure on the next split must not lose them
    return results


def write_predictions(parts: Parts, name: str, evaluation: SplitEvaluation) -> None:
    suffix, text = parts.task.predictions(evaluation.predicted)
    parts.folder.write(f"predictions/{name.replace('/', '_')}{suffix}", text)


def tell_skipped(parts: Parts, loader: Loader, what: str) -> None:
    """Say which images were skipped, by all processes: that changes results."""
    counts = parts.processes.gather(loader.skipped_images)
    if counts is None:
        return
    if bad_images := sum(map(Counter, counts), Counter()):
        name = f"skipped_images_{what.replace('/', '_')}.json"
        path = parts.folder.write_json(name, dict(bad_images))
        logger.warning("%s: %d unreadable images were skipped; %s lists them", what, len(bad_images), path)


def tell_changes(parts: Parts, content: dict[str, Any], now: dict[str, Fingerprint]) -> None:
    """Warn where the data is not as it was when the checkpoint of this `content` was saved; training goes on all the same."""
    former = content.get("data")
    for key in sorted(set(former) & set(now)) if isinstance(former, dict) else ():
        split, name = key.split("/", 1)
        found = changes(former[key], now[key]) if isinstance(former[key], dict) else []
        if found:
            logger.warning(
                "the %s split of %s changed since the checkpoint was saved (%s): training goes on with it as it is now",
                *(split, name, ", ".join(found)),
            )
        if found and split == "train" and "answers" in parts.processors:
            tell_new_answers(parts)


def tell_new_answers(parts: Parts) -> None:
    """Warn of answers that a vocabulary counted now would hold and the checkpoint's lacks: the head has no place for them."""
    fresh = build_processor(parts.config, "answers")
    if fresh.needs_fit:
        splits = (parts.data.get(split) or Mixture.build(parts.builders, split) for split in fresh.splits)
        data_sets = (samples for mixture in splits for samples in mixture.parts.values())
        fresh.fit((answer for samples in data_sets for _, answer in samples.labels() if answer is not None), ())
        missing = sorted(set(fresh.answers) - set(parts.processors["answers"].answers))
        if missing:
            logger.warning(
                "%d answers of the changed data are not among the checkpoint's %d (such as %s): they cannot be learned; start "
                "anew, from these weights by checkpoint.pretrained, to have them",
                *(len(missing), len(parts.processors["answers"].answers), ", ".join(map(repr, missing[:3]))),
            )
