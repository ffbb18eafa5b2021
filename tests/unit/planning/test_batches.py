"""A micro-batch that means nothing has the shapes of one that does."""

import torch
from conftest import ROOT

from pixelbert_plugin import config as configuration
from pixelbert_plugin.planning.batches import Shape, make
from pixelbert_plugin.planning.options import PlanConfig
from pixelbert_plugin.planning.planner import Planner


def batch(name: str, shape: Shape):
    config = configuration.resolve(ROOT / f"projects/pixelbert/configs/{name}.yaml")
    simulation = Planner(config, PlanConfig(gpus="1xH100")).simulation
    return make(simulation.task, simulation.processors["text"], shape)


def test_nlvr2_puts_each_statement_to_two_images():
    found = batch("nlvr2", Shape(samples=6, groups=3, tokens=9, size=(20, 30)))
    assert found.image_index.tolist() == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]
    assert found.input_ids.shape == (6, 9) and found.image_sizes.tolist() == [[20, 30]] * 6
    assert found.targets["pair"].shape == (6,)


def test_pre_training_has_a_false_text_to_each_true_one_and_masks_words():
    found = batch("pretrain", Shape(samples=4, groups=2, tokens=22, size=(20, 30)))
    assert found.input_ids.shape == (8, 22) and found.image_index[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert 0 < len(found.targets["mlm"]) <= 4 * 22 and torch.equal(found.targets["mlm_samples"].unique(), torch.arange(4))


def test_retrieval_has_twenty_negatives():
    found = batch("flickr30k_retrieval", Shape(samples=2, groups=2, tokens=5, size=(20, 30)))
    assert found.input_ids.shape == (42, 5) and len(found) == 2
