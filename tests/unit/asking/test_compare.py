"""Statements about two images, against the softmax of the two labels."""

import math

import pytest

from pixelbert_plugin import Comparison


def test_a_comparison_is_the_softmax_of_the_labels(models, pictures):
    model, statement = models["nlvr2"], "a green disc on a table"
    false, true = model([pictures[0], pictures[1]], statement).logits["pair"][0].tolist()
    found = model.compare(pictures[0], pictures[1], statement)
    assert found.statement == statement
    assert found.probability == pytest.approx(math.exp(true) / (math.exp(true) + math.exp(false)), rel=1e-5)
    assert found.label == ("True" if true > false else "False")
    assert model.compare(pictures[1], pictures[0], statement).probability != pytest.approx(found.probability, rel=1e-3)


def test_lists_of_either_side_in_order(models, pictures):
    model, statement = models["nlvr2"], "is the disc red or blue"
    found = model.compare(pictures[:4], pictures[4], statement, batch_size=3)
    for left, each in zip(pictures, found, strict=False):
        assert each.probability == pytest.approx(model.compare(left, pictures[4], statement).probability, abs=1e-6)
    assert len(found) == 4 and len({each.probability for each in found}) == 4


def test_labels_are_those_of_the_data_set():
    assert [Comparison("", value).label for value in (0.2, 0.5, 0.5001)] == ["False", "False", "True"]
