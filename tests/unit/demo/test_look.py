"""Pictures with a word's attention, by hand."""

import torch

from pixelbert_plugin.asking.attention import Attention
from pixelbert_plugin.demo.look import described, lit, look, reduced


def test_each_cell_has_its_light():
    picture = torch.full((3, 4, 6), 200, dtype=torch.uint8)
    found = lit(picture, torch.tensor([[0.2, 0.1], [0.0, 0.05]]))
    # 200 × (0.25 + 0.75 × weight / 0.2)
    for rows, columns, light in ((0, 0, 200), (0, 1, 125), (1, 0, 50), (1, 1, 88)):
        cell = found[:, 2 * rows : 2 * rows + 2, 3 * columns : 3 * columns + 3]
        assert cell.unique().tolist() == [light]
    assert lit(picture, torch.zeros(2, 2)).unique().tolist() == [50]


def test_it_is_told_in_words():
    weights = torch.zeros(3, 4)
    weights[2, 3], weights[0, 0] = 0.25, 0.05
    assert described("red", weights, "picture") == (
        "30.0 % of the attention of “red” is on the picture, most of it (25.0 %) at the bottom right"
    )
    weights = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.1, 0.0, 0.0]])
    assert described("a", weights, "picture").endswith("most of it (50.0 %) at the centre")
    assert described("a", torch.full((2, 2), 0.1), "picture") == "40.0 % of the attention of “a” is on the picture, evenly"


def test_a_large_picture_is_shown_smaller_and_keeps_its_shape():
    picture = torch.zeros(3, 100, 400, dtype=torch.uint8)
    picture[:, :, 200:] = 250
    small = reduced(picture, 40)
    assert small.shape == (3, 10, 40) and small[0, 5, 0] == 0 and small[0, 5, 39] == 250
    assert torch.equal(reduced(picture, 400), picture)


def test_every_picture_has_its_text(tmp_path):
    one = Attention(("[CLS]", "<b>"), torch.tensor([[[0.1, 0.2]], [[0.4, 0.0]]]))
    found = look([torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2, ["left picture", "right picture"], [one, one])
    html = found.html(1)
    assert html.count("<img ") == html.count("<figcaption>") == 2 and "<b>" not in html
    assert 'alt="The left picture, lit where “&lt;b&gt;” looks"' in html
    assert "40.0 % of the attention of “&lt;b&gt;” is on the right picture, most of it (40.0 %) at the middle left" in html
