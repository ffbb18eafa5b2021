"""Mixtures: several data sets under one index, whatever iterables their builders give."""

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin.data.builders.base import Builder, BuilderConfig
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample
from unit.data.test_samples import SAMPLES, made


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
def test_lists_generators_and_lazy_sequences_make_the_same_mixture(parts, two_images):
    plain = {f"set{number}": made(rows, two_images=two_images) for number, rows in enumerate(parts)}
    expected = [(name, sample) for name, samples in plain.items() for sample in samples]
    # by hand: numbers count up with each new (data set, images)
    numbers: dict[tuple, int] = {}
    by_hand = [numbers.setdefault((name, sample.image_ids), len(numbers)) for name, sample in expected]
    for kind in (list, iter, Lazy, Samples.of):
        mixture = Mixture.build({name: ListBuilder(kind(samples)) for name, samples in plain.items()}, "train")
        assert len(mixture) == len(expected) and [mixture.locate(index) for index in range(len(expected))] == expected
        assert mixture[len(expected) - 1] == mixture[-1] == expected[-1][1]
        assert [mixture.text(index) for index in range(len(expected))] == [sample.text for _, sample in expected]
        with pytest.raises(IndexError):
            mixture.locate(len(expected))
        assert mixture.images_M.tolist() == by_hand and mixture.images_M.dtype == np.int64


class Lazy(Sequence):
    """Makes its samples as they are asked for."""

    def __init__(self, samples):
        self.samples, self.asked = samples, Counter()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.asked[index] += 1
        return replace(self.samples[index])


def test_a_builder_is_asked_for_each_sample_once():
    """Building, numbering and reading, in this process and in those forked from it."""
    samples = Lazy([Sample(sample_id=n, image_ids=(n % 2,), images=("x",), text=f"{n}") for n in range(5)])
    mixture = Mixture.build({"lazy": ListBuilder(samples)}, "train")
    assert mixture.images_M.tolist() == [0, 1, 0, 1, 0] and [sample.text for sample in mixture] == ["0", "1", "2", "3", "4"]
    assert samples.asked == dict.fromkeys(range(5), 1)
    held = pickle.dumps(mixture.parts["lazy"])
    assert b"Lazy" not in held and not any(isinstance(value, list) for value in vars(mixture.parts["lazy"]).values())
    samples.samples[4].sample_id = 3
    with pytest.raises(UserError, match=r"the train split of lazy has several samples of id 3; results are kept by id"):
        Mixture.build({"lazy": ListBuilder(samples)}, "train")


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
