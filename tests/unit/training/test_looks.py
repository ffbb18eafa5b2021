"""Looking at a model that trains: what is seen is what the model did, and nothing of it, nor any draw, is changed."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pixelbert_plugin.training.looks import Looker, _centres, _own, explain

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
        _, ((found,),) = explain(model.model.eval(), batch)
    expected = model.explain(pictures[0], TEXT, method="rollout").images[0].cells
    assert torch.allclose(found.answer, expected.answer, atol=1e-6) and float(found.answer.max()) > float(found.answer.min())
    assert found.centres == expected.centres is not None


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
    first, step = model.model.grid_centres
    for drawn, positions, size in zip(shown, output.pixel_positions.tolist(), batch.image_sizes.tolist(), strict=True):
        assert {(place // columns, place % columns) for place in positions} == {
            tuple(each) for each in drawn.is_drawn_RC.nonzero().tolist()
        }
        for centres, length, count in zip(drawn.centres, size, drawn.is_drawn_RC.shape, strict=True):
            assert centres == pytest.approx([(first + place * step) / length for place in range(count)])


def test_without_sampling_nothing_is_shown(model, batch):
    model.model.config = replace(model.model.config, num_sampled_pixels=None)
    loader = SimpleNamespace(features=None, ready=lambda given: batch)
    assert looker(model).sampled(loader, replace(batch, images=list(batch.images))) == []


def test_an_image_of_fewer_pixels_than_are_drawn_is_left_out(model, batch):
    """All that it has are drawn, with padding beside them."""
    forward = model.model.forward

    def with_padding(given):
        output = forward(given)
        output.pixel_mask[0, -1] = False
        return output

    model.model.forward = with_padding
    loader = SimpleNamespace(features=None, ready=lambda given: batch)
    images = [torch.full((3, 40, 40), number, dtype=torch.uint8) for number in range(len(batch.images))]
    shown = looker(model).sampled(loader, replace(batch, images=images))
    assert [int(drawn.picture[0, 0, 0]) for drawn in shown] == [1]


def test_a_padded_images_own_grid():
    """64 × 96 in a batch of 96 × 96, at a stride of 32: two rows of three."""
    model = SimpleNamespace(grid_centres=(0.5, 32.0))
    batch = SimpleNamespace(image_sizes=torch.tensor([[64, 96]]), images=torch.zeros(1, 3, 96, 96), features=None)
    own, centres = _own(torch.ones(3, 3), _centres(model, batch, 0, (3, 3)))
    assert own.shape == (2, 3) and centres == ([0.5 / 64, 32.5 / 64], [0.5 / 96, 32.5 / 96, 64.5 / 96])
    batch.image_sizes = torch.tensor([[64, 85]])
    batch.images = torch.zeros(1, 3, 85, 85)
    assert _own(torch.ones(3, 3), _centres(model, batch, 0, (3, 3)))[0].shape == (2, 3)
