"""What tells runs apart: everything that `--compare` says, as numbers and texts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin import config as configuration
from pixelbert_plugin.comparing.bootstrap import Compared, clusters, compare
from pixelbert_plugin.comparing.options import CompareConfig
from pixelbert_plugin.comparing.predictions import Scored, read_scored, read_truth
from pixelbert_plugin.comparing.runs import Run, differing
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.errors import UserError

FEW = 20  # clusters, of which a resample is no picture of others
SAME = 1e-6  # between a metric of results.json and the same from the predictions


@dataclass(frozen=True)
class Example:
    """A sample on which one run is better than another."""

    sample: str
    text: str
    truth: str | None
    predictions: list[str]  # of the two runs
    scores: list[float]


@dataclass(frozen=True)
class Pair:
    """The first run and another one, sample by sample."""

    run: int  # the other's number
    first_is_better: int  # samples
    other_is_better: int
    equal: int
    same_prediction: int
    examples: list[Example] = field(default_factory=list)  # where the first is better, then where the other is


@dataclass(frozen=True)
class Split:
    """A file of predictions that all runs have."""

    name: str  # "val_vqa2"
    samples: int  # that all have a prediction of
    clusters: int  # of samples with common images
    metrics: dict[str, Compared] = field(default_factory=dict)
    same: list[str] = field(default_factory=list)  # metrics that are the same in all runs, sample by sample
    pairs: list[Pair] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    runs: list[Run]
    options: dict[str, list[str]]  # that differ: values by key
    results: dict[str, list[float | None]]  # of results.json, by "split/dataset/metric"
    splits: list[Split]
    remarks: list[str]

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["runs"] = [{"name": run.name, "path": str(run.path)} for run in self.runs]
        return _finite(values)


def compare_runs(runs: list[Run], options: CompareConfig, overrides: Sequence[str] = ()) -> Comparison:
    """`overrides`: key=value for the runs' configurations, as env.data_dir. Raises UserError for wrong ones."""
    files = [name for name in runs[0].predictions if all(name in run.predictions for run in runs)]
    remarks = []
    for run in runs:
        if lone := [name for name in run.predictions if name not in files]:
            lacking = ", ".join(each.name for each in runs if not all(name in each.predictions for name in lone))
            remarks.append(
                f"{run.name}: {', '.join(lone)}: no such predictions in {lacking}; run_type=val or test writes them, and "
                "without that run the others are compared"
            )
    if not files:
        remarks.append("no predictions of one split in all runs: metrics have no intervals (run_type=val writes them)")
    splits, config = [], configuration.resolve(runs[0].config, overrides) if files else None
    for name in files:
        assert config is not None
        try:
            splits.append(_split(name, runs, config, options, overrides))
        except UserError as error:
            remarks.append(f"{name}: without intervals and examples: {error}")
    keys = dict.fromkeys(key for run in runs for key in run.results)
    results = {key: [run.results.get(key) for run in runs] for key in keys}
    return Comparison(runs, differing(runs), results, splits, remarks)


def _split(name: str, runs: list[Run], config: RunConfig, options: CompareConfig, overrides: Sequence[str]) -> Split:
    """All runs are held against the first one's truth."""
    truth = read_truth(config, name)
    scored, remarks = [], []
    for number, run in enumerate(runs):
        # of another run its task's options alone: its plugins may be a former state of the first run's, of the same names
        own = config if number == 0 else configuration.load(str(run.config), list(overrides))
        if own.task != config.task:
            raise UserError(f"{run.name} is of the task {own.task!r}, {runs[0].name} of {config.task!r}")
        scored.append(read_scored(run.predictions[name], own, truth))
    keys = [key for key in scored[0].results if all(key in each.results for each in scored)]
    for run, each in zip(runs, scored, strict=True):
        if missing := len(each.results) - len(keys):
            remarks.append(f"{missing:,} predictions of {run.name} are of samples that another run has none of: left out")
            if each.is_whole:
                raise UserError("the runs did not score the same images and texts, among which ranks are")
    if not keys:
        raise UserError("the runs have no sample in common")
    number_of = clusters([scored[0].members[key] for key in keys])
    by_run = [each.measures(keys) for each in scored]
    names = [metric for metric in by_run[0] if all(metric in own for own in by_run)]
    same = [metric for metric in names if all(own[metric] == by_run[0][metric] for own in by_run)]
    measures = {metric: [own[metric] for own in by_run] for metric in names if metric not in same}
    found = compare(measures, number_of, options.resamples, options.seed, options.confidence)
    for run_number, run in enumerate(runs):
        remarks += _disagreements(run, name, {metric: each.values[run_number].value for metric, each in found.items()})
    if (few := int(number_of.max()) + 1) < FEW:
        remarks.append(f"{few} groups are few for a bootstrap: its intervals are too narrow")
    if not names:
        remarks.append("the split has no answers to compare with")
    pairs = [_pair(number, scored[0], scored[number], keys, options.examples) for number in range(1, len(runs))]
    return Split(name, len(keys), int(number_of.max()) + 1, found, same, pairs, remarks)


def _disagreements(run: Run, name: str, values: dict[str, float]) -> list[str]:
    """Where results.json says otherwise than the predictions: they are of another evaluation, or leave skipped images out."""
    for metric, value in values.items():
        for key, told in run.results.items():
            prefix = key[: -len(metric) - 1]
            if key.endswith(f"/{metric}") and prefix.replace("/", "_") == name and abs(told - value) > SAME:
                return [f"{run.name}: its predictions give {metric} {value:.4f}, its results.json has {told:.4f}"]
    return []


def _pair(run: int, first: Scored, other: Scored, keys: list[str], count: int) -> Pair:
    gains = [other.main[key] - first.main[key] if key in first.main and key in other.main else 0.0 for key in keys]
    gain_M = np.array(gains)
    same = sum(first.results[key].prediction == other.results[key].prediction for key in keys)
    examples = []
    for sign in (-1, 1):
        differ = np.flatnonzero(sign * gain_M > 0)
        differ = differ[np.argsort(-np.abs(gain_M[differ]), kind="stable")]
        largest = differ[np.abs(gain_M[differ]) == np.abs(gain_M[differ[0]])] if len(differ) else differ
        pool = largest if len(largest) >= count else differ[:count]
        shown = min(count, len(pool))
        for key in [keys[int(pool[index * len(pool) // shown])] for index in range(shown)]:
            a, b = first.results[key], other.results[key]
            examples.append(
                Example(key, a.sample.text, a.truth, [a.prediction, b.prediction], [first.main[key], other.main[key]])
            )
    return Pair(run, int((gain_M < 0).sum()), int((gain_M > 0).sum()), int((gain_M == 0).sum()), same, examples)


def _finite(node: Any) -> Any:
    """As JSON has it: nan is null."""
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(value) for value in node]
    if isinstance(node, Path):
        return str(node)
    return None if isinstance(node, float) and not np.isfinite(node) else node
