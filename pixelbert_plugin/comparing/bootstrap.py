"""Confidence intervals by a bootstrap, paired by sample and clustered by image. R runs, C clusters, P parts, N resamples.

The questions about one image are right or wrong together, so that whole images are drawn, with replacement, as many as there
are; every run is measured on the same draw, so that what is common to the runs drops out of their difference (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13: percentile intervals).

A metric is the mean of one ratio or several; each is a sum over samples divided by another one.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pixelbert_plugin.data.connected import connected

Terms = Mapping[int, tuple[float, float]]  # by place of a sample: what it adds above and below the line; others add nothing
ROWS = 64  # resamples at a time


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; nan where there are too few clusters for one."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """A metric of all runs."""

    values: list[Estimate]  # of each run
    differences: list[Estimate]  # of each run but the first, from the first

    def is_told_apart(self, run: int) -> bool:
        """Whether the interval of a run's difference from the first (run ≥ 1) is all on one side of 0."""
        difference = self.differences[run - 1]
        return difference.low > 0 or difference.high < 0


def clusters(members: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """M int64: of each sample the number of its cluster, by first use. Samples that share a member, as an image, are in one, as
    are those that others join."""
    together = connected(members)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(together[own[0]], len(numbers)) for own in members], dtype=np.int64)


def compare(
    measures: Mapping[str, Sequence[Sequence[Terms]]], clusters_M: np.ndarray, resamples: int, seed: int, confidence: float
) -> dict[str, Compared]:
    """By metric. `measures`: by metric, of each run the terms of each of its ratios."""
    count = int(clusters_M.max()) + 1 if len(clusters_M) else 0
    runs = len(next(iter(measures.values()))) if measures else 0
    above_RPC, below_RPC, owner_P = _sums(measures, clusters_M, count, runs)
    number = len(measures)

    def metrics(weights_NC: np.ndarray) -> np.ndarray:
        """R N metrics."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios_RNP = (weights_NC @ above_RPC.transpose(0, 2, 1)) / (weights_NC @ below_RPC.transpose(0, 2, 1))
        return np.stack([ratios_RNP[:, :, owner_P == metric].mean(2) for metric in range(number)], axis=2)

    if not number or not count:
        return {}
    whole_RK = metrics(np.ones((1, count)))[:, 0]
    drawn_RNK = np.full((runs, 1, number), np.nan)
    if count > 1:
        generator, blocks = np.random.default_rng(seed), []
        for start in range(0, resamples, ROWS):
            draws = generator.integers(count, size=(min(ROWS, resamples - start), count))
            weights = np.stack([np.bincount(row, minlength=count) for row in draws]).astype(np.float64)
            blocks.append(metrics(weights))
        drawn_RNK = np.concatenate(blocks, axis=1)
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]

    def estimate(value: float, drawn_N: np.ndarray) -> Estimate:
        known = drawn_N[np.isfinite(drawn_N)]  # a rare kind of sample may be in none of the images drawn
        low, high = np.percentile(known, tails) if len(known) else (np.nan, np.nan)
        return Estimate(float(value), float(low), float(high))

    found = {}
    for metric, name in enumerate(measures):
        values = [estimate(whole_RK[run, metric], drawn_RNK[run, :, metric]) for run in range(runs)]
        differences = [
            estimate(whole_RK[run, metric] - whole_RK[0, metric], drawn_RNK[run, :, metric] - drawn_RNK[0, :, metric])
            for run in range(1, runs)
        ]
        found[name] = Compared(values, differences)
    return found


def _sums(
    measures: Mapping[str, Sequence[Sequence[Terms]]], clusters_M: np.ndarray, count: int, runs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Above and below the line by run, part and cluster; and the metric that each part is of."""
    owner = [metric for metric, by_run in enumerate(measures.values()) for _ in by_run[0]]
    above, below = (np.zeros((runs, len(owner), count)) for _ in range(2))
    part = 0
    for by_run in measures.values():
        for run, ratios in enumerate(by_run):
            for place, terms in enumerate(ratios):
                samples = np.fromiter(terms.keys(), dtype=np.int64, count=len(terms))
                values = np.array(list(terms.values()), dtype=np.float64).reshape(-1, 2)
                for target, column in ((above, 0), (below, 1)):
                    target[run, part + place] = np.bincount(clusters_M[samples], values[:, column], minlength=count)
        part += len(by_run[0])
    return above, below, np.array(owner)
