"""Texts and images that belong together, against the softmax of the two logits."""

import math

import pytest
import torch

from pixelbert_plugin.asking.match import probabilities

TEXTS = ["a green disc on a table", "is the disc red or blue", "what color is it"]


@pytest.mark.parametrize("task", ["retrieval", "pretrain"])
def test_probabilities_are_the_softmax_of_the_matching_head(models, pictures, task):
    model = models[task]
    found = model.match(pictures[2], TEXTS)
    assert [each.text for each in found] == TEXTS and len({each.score for each in found}) == 3
    for each in found:
        false, true = model(pictures[2], each.text).logits["itm"][0].tolist()
        assert each.probability == pytest.approx(math.exp(true) / (math.exp(true) + math.exp(false)), rel=1e-5)
        assert each.score == pytest.approx(true - false, abs=1e-5)
        assert model.match(pictures[2], each.text).score == pytest.approx(each.score, abs=1e-5)
    several = model.match(pictures[:3], TEXTS)
    assert several[1].score == pytest.approx(model.match(pictures[1], TEXTS[1]).score, abs=1e-5)


def test_probabilities_go_on_where_those_of_float32_end():
    low, high = probabilities(torch.tensor([20.0, 25.0]))
    assert low == pytest.approx(1 / (1 + math.exp(-20)), abs=1e-16) and low < high < 1
