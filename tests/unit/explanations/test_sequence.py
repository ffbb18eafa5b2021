"""Matrices over the sequence as maps, by hand."""

import pytest
import torch

from pixelbert_plugin.explanations.sequence import on_pixels, rolled


def test_tokens_are_averaged_and_pixels_lie_in_their_grid():
    """L = 3 tokens and 4 pixels in a grid of 3 columns, of which the last is padding, and one pixel too."""
    matrix = torch.zeros(7, 7)
    matrix[0, 3:] = torch.tensor([0.2, 0.2, 0.2, 0.2])
    matrix[1, 3:] = torch.tensor([0.4, 0.0, 0.0, 0.0])
    matrix[2, 3:] = torch.tensor([0.0, 0.2, 0.0, 0.0])
    places, mask = torch.tensor([0, 1, 3, 2]), torch.tensor([True, True, True, False])
    found = on_pixels(matrix, [[0], [1, 2]], 3, places, mask, columns=3)
    # word 1: of its two tokens 0.4 / 2 at pixel 0 and 0.2 / 2 at pixel 1
    expected = torch.tensor([[[0.2, 0.2], [0.2, 0.0]], [[0.2, 0.1], [0.0, 0.0]]])
    torch.testing.assert_close(found, expected)


def test_two_layers_by_hand():
    first = torch.tensor([[[0.0, 2.0], [0.0, 0.0]]])
    second = torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])
    # R = I + A1 = [[1, 2], [0, 1]]; then R + A2 R = R + [[1, 2], [3, 6]]
    assert rolled([first, second]).tolist() == [[[2.0, 4.0], [3.0, 7.0]]]


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_layers_matters(order):
    layers = [torch.tensor([[[0.0, 2.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])][::order]
    wanted = {1: [[2.0, 4.0], [3.0, 7.0]], -1: [[8.0, 2.0], [3.0, 1.0]]}  # the other way: [[2, 0], [3, 1]], then + A1 of it
    assert rolled(layers).tolist() == [wanted[order]]
