"""Looking at a model that trains: what is seen is what the model did, and nothing of it, nor any draw, is changed."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pixelbert_plugin.training.looks import Looker, _own, explain

TEXT = "is the disc red"


@pytest.fixture
def model(models):
    """Of VQA, so that it can be trained; of two pixels one is drawn."""
    loaded = copy.copy(models["vqa"])
    loaded.model = copy.deepcopy(loaded.model)
    loaded.model.config = replace(loaded.model.config, num_sampled_pixels=1)
    return loaded


@pytest.fixture
def batch(model, pictures):
    return model.batch([(picture, TEXT) for picture in pictures[:2]])


def looker(model) -> Looker:
    from pixelbert_plugin.precision.native import choose

    return Looker(model.model, model.task, choose("fp32", {}, torch.device("cpu")), {}, 8)


def test_an_explanation_is_rollout_at_cls(model, pictures):
    batch = model.batch([(pictures[0], TEXT)])
    with torch.no_grad():
        _, ((weights,),) = explain(model.model.eval(), batch)
    expected = model.explain(pictures[0], TEXT, method="rollout").images[0].cells.answer
    assert torch.allclose(weights, expected, atol=1e-6) and float(weights.max()) > float(weights.min())


def test_the_pixels_shown_are_those_that_training_draws_and_nothing_changes(model, batch):
    loader = SimpleNamespace(features=None, ready=lambda given: batch)
    read = replace(batch, images=[torch.zeros(3, 40, 40, dtype=torch.uint8)] * len(batch.images))
    model.model.train()
    state = {name: value.clone() for name, value in model.model.state_dict().items()}
    draws = torch.get_rng_state()
    shown = looker(model).sampled(loader, read)
    assert torch.equal(draws, torch.get_rng_state())
    assert all(torch.equal(value, model.model.state_dict()[name]) for name, value in state.items())  # batch norms' statistics
    assert all(module.training for module in model.model.modules())
    output = model.model(batch)  # as a training does it
    assert output.pixel_positions.shape[1] == 1
    columns = output.grid[1]
    assert len(shown) == len(batch.images)
    for (_, drawn), positions in zip(shown, output.pixel_positions.tolist(), strict=True):
        assert {(place // columns, place % columns) for place in positions} == {
            tuple(each) for each in drawn.nonzero().tolist()
        }


def test_without_sampling_nothing_is_shown(model, batch):
    model.model.config = replace(model.model.config, num_sampled_pixels=None)
    loader = SimpleNamespace(features=None, ready=lambda given: batch)
    assert looker(model).sampled(loader, replace(batch, images=list(batch.images))) == []


def test_a_padded_images_own_grid():
    """64 × 96 in a batch of 96 × 96, at a stride of 32: two rows of three."""
    batch = SimpleNamespace(image_sizes=torch.tensor([[64, 96]]), images=torch.zeros(1, 3, 96, 96))
    assert _own(torch.ones(3, 3), batch, 0).shape == (2, 3)
    batch.image_sizes = torch.tensor([[64, 85]])
    batch.images = torch.zeros(1, 3, 85, 85)
    assert _own(torch.ones(3, 3), batch, 0).shape == (2, 3)
