"""Maps over pixels and their pictures, by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from pixelbert_plugin import UserError
from pixelbert_plugin.asking.explanation import Explanation, ImageExplanation, lit
from pixelbert_plugin.data.light import over_pixels
from pixelbert_plugin.types import ExplanationMap


def made(words=("[CLS]", "red"), **more) -> Explanation:
    picture = torch.full((3, 4, 8), 200, dtype=torch.uint8)
    cells = ExplanationMap(
        answer=torch.tensor([[0.0, 1.0]]), words=torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]) if words else None, **more
    )
    return Explanation("mine", "is it red?", "yes", 0.75, words, "mine", (ImageExplanation(picture, cells, cells),))


def test_cells_lie_evenly_and_are_linear_between_their_centres():
    found = over_pixels(torch.tensor([[0.0, 1.0]]), (2, 8))
    # centres at 2 and 6 of 8 pixels, whose own are at 0.5, 1.5, …
    assert found.tolist() == [[0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0]] * 2


def test_cells_lie_where_they_look():
    """As a ResNet's do: the first at the corner, the next half of the way on."""
    found = over_pixels(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), (4, 8), ([0.125, 0.625], [0.0625, 0.5625]))
    # columns: centres at 0.5 and 4.5 of 8 pixels; rows: at 0.5 and 2.5 of 4
    across = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0])
    down = np.array([0.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(found, down[:, None] + across)


def test_the_light_follows_the_map():
    picture = torch.full((3, 1, 4), 200, dtype=torch.uint8)
    # 200 × (0.25 + 0.75 × value / 0.2); below 0 as at 0
    assert lit(picture, torch.tensor([[0.2, 0.1, 0.0, -3.0]]))[0].tolist() == [[200, 125, 50, 50]]
    assert lit(picture, torch.zeros(1, 4)).unique().tolist() == [50]


def test_the_map_has_the_pictures_size_and_type():
    found = made()
    assert found.map.shape == (4, 8) and found.map.dtype == np.float32 and found.map[0, -1] == 1.0
    assert found.word_map(0)[0, 0] == 1.0 and (found.word_map(1) == 0.5).all()
    assert found.overlay().size == (8, 4) and found.overlay().getpixel((7, 0)) == (200, 200, 200)
    assert found.overlay(0).getpixel((7, 0)) == (50, 50, 50)
    for word in (2, -1):
        with pytest.raises(UserError, match=f"^word={word}: there are 2 maps of words here"):
            found.word_map(word)


def test_a_sheet_shows_the_picture_the_answer_and_every_word(tmp_path):
    found = made()
    sheet = found.sheet()
    tile, step = 240, 248
    assert sheet.size[0] == 4 * step + 8
    middle = 8 + tile // 2
    tiles = [sheet.getpixel((8 + place * step + tile - 2, middle))[0] for place in range(4)]
    assert tiles == [200, 200, 50, 200]  # the picture; the answer, lit at the right; a word that is dark there; an even one
    found.save(tmp_path / "why.png")
    assert Image.open(tmp_path / "why.png").size == sheet.size
    assert made(words=()).sheet().size[0] == 2 * step + 8


def test_a_sheet_replaces_nothing_by_itself(tmp_path):
    found = made()
    (tmp_path / "why.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"why\.png': is there already; name another file, or overwrite=true"):
        found.save(tmp_path / "why.png")
    assert (tmp_path / "why.png").read_bytes() == b"mine"
    found.save(tmp_path / "why.png", overwrite=True)
    assert Image.open(tmp_path / "why.png").format == "PNG"
    found.save(tmp_path / "why.JPG")
    assert Image.open(tmp_path / "why.JPG").format == "JPEG"
    for name, told in (("why.txt", "must be a file that ends in .png"), ("no/why.png", "there is no folder")):
        with pytest.raises(UserError, match=told):
            found.save(tmp_path / name)
