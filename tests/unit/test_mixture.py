"""Mixtures: several data sets under one index, by columns or by plain lists."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pairs import SAMPLES, make_pairs

from pixelbert_plugin.data.builders.base import Builder, BuilderConfig
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample


class ListBuilder(Builder):
    """Gives the samples it is given."""

    def __init__(self, samples, splits=("train",)):
        super().__init__(BuilderConfig(), Path("data"))
        self._samples, self._splits = samples, splits

    def has_split(self, split):
        return split in self._splits

    def samples(self, split):
        return self._samples


@settings(deadline=None)
@given(parts=st.lists(SAMPLES.filter(len), min_size=1, max_size=3), two_images=st.booleans())
def test_columns_and_plain_lists_make_the_same_mixture(parts, two_images):
    made = {f"set{number}": make_pairs(rows, two_images=two_images) for number, rows in enumerate(parts)}
    fast = Mixture.build({name: ListBuilder(pairs) for name, (pairs, _) in made.items()}, "train")
    slow = Mixture.build({name: ListBuilder(plain) for name, (_, plain) in made.items()}, "train")
    expected = [(name, sample) for name, (_, plain) in made.items() for sample in plain]
    for mixture in (fast, slow):
        assert len(mixture) == len(expected) and [mixture.locate(index) for index in range(len(expected))] == expected
        assert mixture[len(expected) - 1] == mixture[-1] == expected[-1][1]
        with pytest.raises(IndexError):
            mixture.locate(len(expected))
    # by hand: numbers count up with each new (data set, images)
    numbers: dict[tuple, int] = {}
    by_hand = [numbers.setdefault((name, sample.image_ids), len(numbers)) for name, sample in expected]
    for mixture in (fast, slow):
        assert mixture.images_M.tolist() == by_hand and mixture.images_M.dtype == np.int64


def test_columns_are_not_walked_through():
    """Building and numbering asks for the first sample alone."""
    asked = Counter()

    class Columns(list):
        def __getitem__(self, index):
            asked[index] += 1
            return super().__getitem__(index)

        def __iter__(self):
            raise AssertionError("walked through")

    samples = Columns(Sample(sample_id=n, image_ids=(n % 2,), images=("x",), text="") for n in range(5))
    samples.ids_M, samples.image_numbers_M = np.arange(5), np.array([7, 3, 7, 3, 7])
    mixture = Mixture.build({"columns": ListBuilder(samples)}, "train")
    assert mixture.images_M.tolist() == [0, 1, 0, 1, 0] and asked == {0: 1}
    samples.ids_M = np.array([0, 1, 2, 3, 3])
    with pytest.raises(
        UserError, match=r"the train split of columns has several samples of id '?\w+'?; results are kept by id"
    ):
        Mixture.build({"columns": ListBuilder(samples)}, "train")


def test_data_sets_without_the_split_are_left_out():
    samples = [Sample(sample_id=1, image_ids=(1,), images=("x",), text="a")]
    builders = {"with": ListBuilder(samples, ("train", "val")), "without": ListBuilder(samples)}
    assert list(Mixture.build(builders, "train").parts) == ["with", "without"]
    val = Mixture.build(builders, "val")
    assert list(val.parts) == ["with"] and val.on_bad_image["without"] == "error" and val.locate(0)[0] == "with"
    with pytest.raises(
        UserError, match=r"^datasets: the test split of with, without is empty: no data set has one; change run_type$"
    ):
        Mixture.build(builders, "test")


def test_a_builder_without_own_splits_refuses_use():
    with pytest.raises(ValueError, match=r"^use: "):
        Builder(BuilderConfig(use={"val": "minival"}), Path("data"))


def test_a_plugins_failure_is_one_line():
    broken = SimpleNamespace(config=BuilderConfig(), has_split=lambda split: 1 / 0)
    with pytest.raises(UserError, match=r"the builder 'broken' .* failed on the train split: ZeroDivisionError"):
        Mixture.build({"broken": broken}, "train")
