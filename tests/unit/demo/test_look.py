"""Pictures with the map of an answer or a word, by hand."""

import torch

from pixelbert_plugin.asking.explanation import Explanation, ImageExplanation
from pixelbert_plugin.demo.look import Look, described, reduced
from pixelbert_plugin.types import ExplanationMap


def test_it_is_told_in_words():
    values = torch.zeros(6, 6)
    values[4:, 4:], values[0, 0] = 0.25, 1.0
    # the ninths' sums are 1 and 1: the first of equal ones
    assert described("“red”", values, "picture") == "“red”: 50.0 % of the map of the picture is at the top left"
    values[5, 5] = 1.25
    assert described("“red”", values, "picture") == "“red”: 66.7 % of the map of the picture is at the bottom right"
    values = torch.zeros(3, 3)
    values[1, 1], values[0, 1] = 0.6, -5.0  # what is below 0 counts for nothing
    assert described("“a”", values, "picture") == "“a”: 100.0 % of the map of the picture is at the centre"
    assert described("“a”", torch.full((5, 7), 0.1), "picture") == "“a”: evenly over the picture"


def test_a_large_picture_is_shown_smaller_and_keeps_its_shape():
    picture = torch.zeros(3, 100, 400, dtype=torch.uint8)
    picture[:, :, 200:] = 250
    small = reduced(picture, 40)
    assert small.shape == (3, 10, 40) and small[0, 5, 0] == 0 and small[0, 5, 39] == 250
    assert torch.equal(reduced(picture, 400), picture)


def test_every_picture_has_its_text():
    cells = ExplanationMap(answer=torch.tensor([[0.1, 0.1]]), words=torch.tensor([[[0.1, 0.2]], [[0.4, 0.0]]]))
    image = ImageExplanation(torch.zeros(3, 9, 9, dtype=torch.uint8), cells, cells)
    found = Look(
        Explanation("mine", "text", "yes", 0.5, ("[CLS]", "<b>"), "mine", (image, image)), ("left picture", "right picture")
    )
    assert found.words == ("the answer: yes", "[CLS]", "<b>")
    html = found.html(2)
    assert html.count("<img ") == html.count("<figcaption>") == 2 and "<b>" not in html
    assert 'alt="The left picture, lit where “&lt;b&gt;” looks"' in html
    # its thirds have 0.3926, 0.2 and 0.0074 of the mean: 0.3926 / (3 × 0.6) in each of the three ninths at the left
    assert "“&lt;b&gt;”: 21.8 % of the map of the right picture is at the top left" in html
    assert 'alt="The left picture, lit where “the answer: yes” comes from"' in found.html(0)
    assert "“the answer: yes”: evenly over the right picture" in found.html(0)
