"""Pictures and tables of a validation: no text covers another, the same samples every time, light where the weights are."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pixelbert_plugin.training import pictures
from pixelbert_plugin.training.looks import Drawn, Look
from pixelbert_plugin.types import ExplanationMap, Result, Sample

LONG = "a very long caption about a small yellow square beside a large blue circle and much else " * 5


@pytest.fixture
def image(tmp_path) -> Path:
    draw_image(tmp_path / "image.png", "red", 1)
    return tmp_path / "image.png"


def result(image, number=0, text=LONG, prediction="a", truth="b", **more) -> Result:
    sample = Sample(sample_id=number, image_ids=(number // 2,), images=(image,), text=text)
    return Result(sample, prediction, truth, **more)


def overlaps(drawn) -> int:
    """Pairs of texts, or of a text and a picture, that cover each other once they are drawn."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [text.get_window_extent(renderer) for axis in drawn.axes for text in axis.texts if text.get_text()]
    shown = [axis.images[0].get_window_extent(renderer) for axis in drawn.axes if axis.images]
    assert texts and shown
    found = sum(one.overlaps(other) for one, other in combinations(texts, 2))
    return found + sum(text.overlaps(picture) for text in texts for picture in shown)


def test_no_text_covers_another_or_a_picture(image):
    answers = [result(image, number, prediction=LONG, truth="$x$ costs $5") for number in range(9)]
    assert overlaps(pictures.figure(answers)) == 0
    rows = [{"caption": LONG, "its own": "yes" * (place == 2)} for place in range(5)]
    ranked = [result(image, number, rows=rows) for number in range(4)]
    assert overlaps(pictures.figure_of_rankings(ranked)) == 0
    axis = pictures.figure(answers).axes[0]
    axis.figure.axes[1].text(0, 0, "x" * 80, transform=axis.figure.axes[0].transAxes)
    assert overlaps(axis.figure) > 0  # and it would be seen


def test_the_best_captions_are_numbered_and_the_images_own_stand_out(image):
    rows = [{"caption": f"caption {place}", "its own": "yes" if place == 1 else ""} for place in range(3)]
    _, texts = pictures.figure_of_rankings([result(image, rows=rows)]).axes
    assert [text.get_text() for text in texts.texts] == ["1. caption 0", "2. caption 1", "3. caption 2"]
    assert [text.get_weight() for text in texts.texts] == ["normal", "bold", "normal"]


def test_as_many_images_are_drawn_as_are_asked_for(image):
    """Of different images, evenly over the split; in rows of four, each with a row of texts."""
    results = [result(image, number) for number in range(20)]
    for count, rows, columns in ((8, 4, 4), (5, 4, 4), (3, 2, 3), (99, 6, 4)):
        drawn = pictures.figure(pictures.spread(results, count))
        assert drawn.axes[0].get_gridspec().get_geometry() == (rows, columns)
        assert sum(bool(axis.images) for axis in drawn.axes) == min(count, 10)
    assert [each.sample.image_ids for each in pictures.spread(results, 5)] == [(0,), (2,), (4,), (6,), (8,)]


@pytest.mark.parametrize(
    ("scores", "truth", "right"),
    [({"accuracy": 0.6}, "b", True), ({"accuracy": 0.3}, "a", False), ({}, "a", True), ({}, "b", False), ({}, None, None)],
)
def test_right_is_what_its_accuracy_says_or_the_truth(image, scores, truth, right):
    assert pictures.is_right(result(image, truth=truth, scores=scores)) is right


def test_a_table_of_words_has_each_text_once(image):
    rows = [{"word": "[MASK]", "guess": "a|b", "truth": "red"}, {"word": "dog", "guess": "cat", "truth": "cat"}]
    table = pictures.table([result(image, text="one  two", rows=rows), result(image, 1, text="three", rows=rows[:1])])
    assert table.splitlines() == [
        "| text | word | guess | truth |",
        "|---|---|---|---|",
        "| one two | [MASK] | a\\|b | red |",
        "|  | dog | cat | cat |",
        "| three | [MASK] | a\\|b | red |",
    ]
    assert pictures.table([result(image)]) == ""


def test_light_falls_where_the_weights_are_on_each_of_two_images():
    """White images of 4 × 4 and 4 × 2: a grid of 2 × 2, whose columns look at the first and the last pixel, and one of 1 × 1
    with half the highest weight."""
    sample = Sample(sample_id=0, image_ids=(0, 1), images=(Path("a"), Path("b")), text="")
    grid = ExplanationMap(answer=torch.tensor([[2.0, 0.0], [0.0, 0.0]]), centres=([0.25, 0.75], [0.125, 0.875]))
    look = Look(sample, "", [grid, ExplanationMap(answer=torch.tensor([[1.0]]))], [4, 2])
    shown = pictures.lit(torch.full((3, 4, 6), 240, dtype=torch.uint8), look)[0]
    down, across = np.array([1, 0.75, 0.25, 0]), np.array([1, 2 / 3, 1 / 3, 0])  # linear from centre to centre
    expected = np.concatenate([60 + 180 * down[:, None] * across, np.full((4, 2), 60 + 180 * 0.5)], axis=1)
    assert np.array_equal(shown.numpy(), expected.round())


def test_drawn_pixels_keep_their_light():
    """Two pixels of the grid, of which the second looks at the last of four pixels: the third is nearer to it."""
    drawn = Drawn(torch.full((3, 2, 4), 100, dtype=torch.uint8), torch.tensor([[True, False]]), ([0.5], [0.125, 0.875]))
    evenly = Drawn(torch.full((3, 2, 4), 100, dtype=torch.uint8), torch.tensor([[True, False]]), None)
    first = Drawn(torch.full((3, 2, 4), 100, dtype=torch.uint8), torch.tensor([[True, False]]), ([0.5], [0.125, 0.375]))
    shown = pictures.figure_of_sampled([drawn, evenly, first])
    lights = [np.asarray(axis.images[0].get_array())[:, :, 0].tolist() for axis in shown.axes if axis.images]
    assert lights == [[[100, 100, 25, 25]] * 2] * 2 + [[[100, 25, 25, 25]] * 2]
    texts = [text.get_text() for axis in shown.axes for text in axis.texts]
    assert texts == ["1 of 1 × 2 pixels"] * 3
