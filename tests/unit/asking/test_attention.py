"""Where words look, against weights worked out by hand and from the layer's own parameters."""

import copy

import numpy as np
import pytest
import torch

from pixelbert_plugin import UserError
from pixelbert_plugin.asking.attention import attend, on_pixels

TEXT = "is the bluegreen disc"


def test_heads_and_tokens_are_averaged_and_pixels_lie_in_their_grid():
    """Two heads, L = 3 tokens and 4 pixels in a grid of 3 columns, of which the last is padding, and one pixel too."""
    weights = torch.zeros(2, 7, 7)
    weights[0, 0, 3:] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    weights[1, 0, 3:] = torch.tensor([0.3, 0.2, 0.1, 0.0])
    weights[0, 1, 3:] = torch.tensor([0.8, 0.0, 0.0, 0.0])
    weights[1, 2, 3:] = torch.tensor([0.0, 0.4, 0.0, 0.0])
    places, mask = torch.tensor([0, 1, 3, 2]), torch.tensor([True, True, True, False])
    found = on_pixels(weights, [[0], [1, 2]], 3, places, mask, columns=3)
    # word 0: means of the heads; words 1: (0.8 + 0) / 2 heads / 2 tokens at pixel 0, (0 + 0.4) / 2 / 2 at pixel 1
    expected = torch.tensor([[[0.2, 0.2], [0.2, 0.0]], [[0.2, 0.1], [0.0, 0.0]]])
    torch.testing.assert_close(found, expected)


def softmax_of_the_last_layer(model, images, text) -> tuple[np.ndarray, int]:
    """Q h S S from what goes into the last layer and its own weights, in numpy, and the number of tokens."""
    layer = model.model.text_encoder.bert.encoder.layer[-1]
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = model.batch([(images, text)])
    try:
        output = model.output(batch)
    finally:
        hook.remove()
    hidden = seen[0].double().numpy()
    own = layer.attention.self

    def heads(linear):
        values = hidden @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
        return values.reshape(*hidden.shape[:2], 2, 16).transpose(0, 2, 1, 3)  # TINY: 2 heads of 16

    scores = heads(own.query) @ heads(own.key).transpose(0, 1, 3, 2) / 4
    mask = np.concatenate([batch.text_mask.repeat(len(hidden), 1).numpy(), output.pixel_mask.numpy()], axis=1)
    powers = np.exp(scores) * mask[:, None, None]
    return powers / powers.sum(-1, keepdims=True), batch.input_ids.shape[1]


def test_it_is_the_softmax_of_the_last_layer(models, pictures):
    model = models["vqa"]
    (found,) = attend(model, pictures[0], TEXT)
    assert found.words == ("[CLS]", "is", "the", "bluegreen", "disc", "[SEP]")
    weights, length = softmax_of_the_last_layer(model, pictures[0], TEXT)
    tokens = model.processors["text"](TEXT)[0]
    assert length == len(tokens) > 6  # bluegreen is of several pieces
    mean = weights[0].mean(0)
    pieces = mean[3 : length - 2].mean(0)
    expected = np.stack([mean[0], mean[1], mean[2], pieces, mean[length - 2], mean[length - 1]])[:, length:]
    assert found.weights.shape[1:] == (1, 2)  # 64 × 48, resized to 43 × 32, at stride 32
    np.testing.assert_allclose(found.weights.flatten(1).numpy(), expected, rtol=1e-4, atol=1e-7)
    assert 0 < float(found.weights[0].sum()) < 1 and expected.std(1).min() > 1e-6


def test_of_two_images_each_has_its_own_grid(models, pictures):
    model = models["nlvr2"]
    left, right = attend(model, [pictures[0], pictures[1]], TEXT)  # landscape and portrait, padded in one batch
    assert left.weights.shape[1:] == (1, 2) and right.weights.shape[1:] == (2, 1)
    weights, length = softmax_of_the_last_layer(model, [pictures[0], pictures[1]], TEXT)
    grid = weights[:, :, 0, length:].mean(1).reshape(2, 2, 2)  # of [CLS]
    np.testing.assert_allclose(left.weights[0].numpy(), grid[0, :1], rtol=1e-4)
    np.testing.assert_allclose(right.weights[0].numpy(), grid[1, :, :1], rtol=1e-4)


def test_a_model_that_does_not_give_it_is_told(models, pictures, monkeypatch):
    model = copy.copy(models["vqa"])
    monkeypatch.setattr(type(model.model), "gives_attentions", False)
    with pytest.raises(UserError, match="the model 'pixelbert' does not give its attention"):
        attend(model, pictures[0], TEXT)
