"""Rollout, against a product written out by hand, and against the model's own attention."""

import numpy as np
import pytest
import torch

from pixelbert_plugin import UserError
from pixelbert_plugin.explanations.rollout import rollout


def test_two_layers_by_hand():
    first, second = torch.tensor([[[1.0, 0.0], [0.4, 0.6]]]), torch.tensor([[[0.2, 0.8], [0.0, 1.0]]])
    # half residual: [[1, 0], [0.2, 0.8]], then [[0.6, 0.4], [0, 1]] times that
    torch.testing.assert_close(rollout([first, second], 0.5), torch.tensor([[[0.68, 0.32], [0.2, 0.8]]]))
    torch.testing.assert_close(rollout([first, second], 0.0), second @ first)
    torch.testing.assert_close(rollout([first, second], 1.0), torch.eye(2)[None])


def test_it_is_the_product_over_the_models_layers(models, pictures):
    model = models["vqa"]
    batch = model.batch([(pictures[0], "is the disc red")])
    with torch.no_grad():
        output = model.model(batch, return_attentions=True)
    one, two = (weights[0].mean(0).double().numpy() for weights in output.attentions)
    unit = np.eye(len(one))
    product = (0.25 * unit + 0.75 * two) @ (0.25 * unit + 0.75 * one)
    found = model.explain(pictures[0], "is the disc red", "rollout", options={"residual": 0.25})
    expected = product[: batch.input_ids.shape[1], -2:].reshape(-1, 1, 2)
    np.testing.assert_allclose(found.images[0].cells.words.numpy(), expected, rtol=1e-5)
    with pytest.raises(UserError, match=r"^options\.residual: 2.0 is invalid: must be at most 1"):
        model.explain(pictures[0], "is the disc red", "rollout", options={"residual": 2.0})
