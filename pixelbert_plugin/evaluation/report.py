"""What is told of a run's evaluation: predictions, metrics, tables, and images that were skipped."""

import logging
from collections import Counter
from functools import partial

from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.evaluation.evaluator import SplitEvaluation
from pixelbert_plugin.evaluation.split_evaluator import SplitEvaluator
from pixelbert_plugin.evaluation.table import results_table
from pixelbert_plugin.parts import Job, Parts

logger = logging.getLogger(__name__)


def report(evaluator: SplitEvaluator, split: str) -> dict[str, float]:
    """Evaluate a split, write its predictions and metrics, print its table. Returns metrics by "split/dataset/metric"."""
    parts, job = evaluator.parts, evaluator.parts.job
    results: dict[str, float] = {}
    for dataset, evaluation in evaluator.evaluate(split, is_final=True).items():
        name = parts.data.own_name(split, dataset)
        results |= {f"{name}/{metric}": value for metric, value in evaluation.metrics.items()}
        if evaluator.options.predict:
            job.processes.on_main(partial(write_predictions, parts, name, evaluation))
        tell_skipped(job, evaluator.loader(split, dataset), name)
    for table in results_table(results):
        job.console.print(table)
    job.processes.on_main(lambda: job.folder.add_results(results))  # at once: a failure on the next split must not lose them
    return results


def write_predictions(parts: Parts, name: str, evaluation: SplitEvaluation) -> None:
    """In the data set's official format, where the task has one."""
    if parts.task.predictions is not None:
        suffix, text = parts.task.predictions(evaluation.predicted)
        parts.job.folder.write(f"predictions/{name.replace('/', '_')}{suffix}", text)


def tell_skipped(job: Job, loader: Loader, what: str) -> None:
    """Say which images were skipped, by all processes: that changes results."""
    counts = job.processes.gather(loader.skipped_images)
    if counts is None:
        return
    if bad_images := sum(map(Counter, counts), Counter()):
        name = f"skipped_images_{what.replace('/', '_')}.json"
        path = job.folder.write_json(name, dict(bad_images))
        logger.warning("%s: %d unreadable images were skipped; %s lists them", what, len(bad_images), path)
