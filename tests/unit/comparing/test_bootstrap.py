"""Intervals of a bootstrap whose true width is known: by theory, by a plain loop, and by samples that say the same twice."""

import math
import random

import numpy as np
import pytest

from pixelbert_plugin.comparing.bootstrap import clusters, compare


def mean_of(scores) -> list[dict]:
    return [{place: (float(score), 1.0) for place, score in enumerate(scores)}]


def draws(seed: int, samples: int, groups: int) -> tuple[list[float], list[float], np.ndarray]:
    """Two runs that are right and wrong together mostly, by images; the second is better on a tenth of the samples."""
    draw = random.Random(seed)
    ease = [draw.random() for _ in range(groups)]
    of = np.array([place % groups for place in range(samples)])
    first = [float(draw.random() < ease[group]) for group in of]
    second = [1.0 if draw.random() < 0.1 else score for score in first]
    return first, second, of


def test_samples_that_share_an_image_are_one_cluster_as_are_those_that_others_join():
    members = [["a"], ["b"], ["a"], ["c", "d"], ["d", "e"], ["f"], ["b", "f"]]
    assert clusters(members).tolist() == [0, 1, 0, 2, 2, 1, 1]


def test_the_intervals_are_those_of_a_plain_loop():
    """The same draws of images, one resample after the other, sums by a loop."""
    first, second, of = draws(1, 60, 12)
    found = compare({"x": [mean_of(first), mean_of(second)]}, of, 300, 7, 0.9)["x"]
    generator, values, differences = np.random.default_rng(7), [], []
    for start in range(0, 300, 64):
        for row in generator.integers(12, size=(min(64, 300 - start), 12)):
            chosen = [place for group in row for place in range(60) if of[place] == group]
            means = [sum(run[place] for place in chosen) / len(chosen) for run in (first, second)]
            values.append(means[0])
            differences.append(means[1] - means[0])
    assert (found.values[0].low, found.values[0].high) == pytest.approx(tuple(np.percentile(values, [5, 95])))
    difference = found.differences[0]
    assert (difference.low, difference.high) == pytest.approx(tuple(np.percentile(differences, [5, 95])))
    assert found.values[1].value == pytest.approx(sum(second) / 60)
    assert difference.value == pytest.approx((sum(second) - sum(first)) / 60)


def test_the_width_is_that_of_theory():
    """Of independent images: ± 1.96 standard errors of the mean, of the difference those of the differences."""
    first, second, of = draws(2, 2000, 2000)
    found = compare({"x": [mean_of(first), mean_of(second)]}, of, 4000, 1, 0.95)["x"]
    for estimate, values in ((found.values[0], first), (found.differences[0], np.subtract(second, first))):
        half = 1.96 * np.std(values) / math.sqrt(2000)
        assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.08)
    width = found.values[0].high - found.values[0].low
    paired = found.differences[0].high - found.differences[0].low
    assert paired < 0.6 * width  # what is common to the runs drops out
    assert found.is_told_apart(1)


def test_samples_that_repeat_others_of_their_image_narrow_nothing():
    """Each question five times: five times the samples and no more knowledge. Exactly the same intervals."""
    first, second, of = draws(3, 40, 20)
    once = compare({"x": [mean_of(first), mean_of(second)]}, of, 500, 1, 0.95)
    five = compare({"x": [mean_of(first * 5), mean_of(second * 5)]}, np.tile(of, 5), 500, 1, 0.95)
    for one, other in zip(
        [*once["x"].values, *once["x"].differences], [*five["x"].values, *five["x"].differences], strict=True
    ):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_a_ratio_of_sums_and_the_mean_of_two_ratios():
    """Words right of words masked, 1/4 and 2/2, are 3/6 and not the mean 5/8; of R@1 both ways the mean is meant."""
    words = [{0: (1.0, 4.0), 1: (2.0, 2.0)}]
    both = [{0: (1.0, 1.0)}, {1: (0.0, 1.0)}]
    found = compare({"words": [words, words], "both": [both, both]}, np.array([0, 1]), 50, 1, 0.95)
    assert found["words"].values[0].value == 0.5 and found["both"].values[0].value == 0.5
    assert not found["words"].is_told_apart(1) and found["words"].differences[0].value == 0


def test_no_more_than_chance_is_told_apart():
    """Two runs that are equally good, each pair drawn anew: one in twenty may be told apart by 95 % intervals."""
    told = 0
    for seed in range(40):
        draw = random.Random(seed)
        runs = [mean_of([float(draw.random() < 0.5) for _ in range(200)]) for _ in range(2)]
        told += compare({"x": runs}, np.arange(200), 300, seed, 0.95)["x"].is_told_apart(1)
    assert told <= 6


def test_one_cluster_has_no_interval():
    found = compare({"x": [mean_of([1, 0]), mean_of([1, 1])]}, np.array([0, 0]), 10, 1, 0.95)["x"]
    assert found.differences[0].value == 0.5 and math.isnan(found.differences[0].low) and not found.is_told_apart(1)
