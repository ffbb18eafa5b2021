"""Images found by a text, against every pair asked by itself."""

import shutil

import pytest
import torch

from pixelbert_plugin import UserError

TEXTS = ["a green disc on a table", "is the disc red or blue"]


def brute_force(model, pictures, text):
    scored = [(model.match(picture, text).score, str(picture)) for picture in pictures]
    return sorted(scored, key=lambda pair: -pair[0])


@pytest.mark.parametrize("batch_size", [2, 32])
def test_the_order_is_that_of_every_pair_by_itself(models, pictures, batch_size):
    model = models["retrieval"]
    for text, found in zip(TEXTS, model.search(pictures, TEXTS, top_k=5, batch_size=batch_size), strict=True):
        expected = brute_force(model, pictures, text)
        assert found.text == text and [each.image for each in found.found] == [image for _, image in expected[:5]]
        assert [each.score for each in found.found] == pytest.approx([score for score, _ in expected[:5]], abs=1e-4)
        assert [pictures[each.index] for each in found.found] == [pictures[0].parent / each.image for each in found.found]
        for each in found.found:
            assert each.probability == pytest.approx(1 / (1 + 2.718281828459045**-each.score), rel=1e-6)
    assert found.best == found.found[0]


def test_each_image_goes_through_the_cnn_once(models, pictures, monkeypatch):
    model, seen = models["retrieval"], []
    own = model.model.image_encoder.forward
    monkeypatch.setattr(
        model.model.image_encoder, "forward", lambda images, sizes: seen.append(len(images)) or own(images, sizes)
    )
    at_once = model.search(pictures, TEXTS, batch_size=4)
    assert seen == [4, 3]
    gallery = model.gallery(pictures, batch_size=4)
    seen.clear()
    assert [model.search(gallery, text, batch_size=4) for text in TEXTS] == at_once and not seen
    assert len(gallery) == 7 and repr(gallery) == "Gallery(7 images, 0 unreadable)"


def test_a_folder_is_searched_and_what_cannot_be_read_is_listed(models, pictures, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures[0].parent, folder / "below/further")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (folder / "notes.txt").write_text("no image by its name")
    (folder / ".hidden.png").write_bytes(b"")
    model = models["pretrain"]
    found = model.search(str(folder), TEXTS[0], top_k=100)
    expected = brute_force(model, sorted((folder / "below/further").iterdir()), TEXTS[0])
    assert [each.image for each in found.found] == [image for _, image in expected]
    ((image, reason),) = [(each.image, each.reason) for each in found.unreadable]
    assert image == str(folder / "broken.jpg") and image in reason and "a damaged JPEG" in reason
    gallery = model.gallery(folder)
    assert len(gallery) == 7 and gallery.unreadable == found.unreadable
    assert model.search(gallery, TEXTS[0], top_k=100) == found


def test_images_in_memory_are_known_by_their_place(models, pictures):
    model = models["retrieval"]
    pixels = [model.processors["image"].decode(picture) for picture in pictures[:2]]
    found = model.search([b"none", *pixels], TEXTS[0]).found
    assert {(each.image, each.index) for each in found} == {("image 1", 1), ("image 2", 2)}


def test_what_cannot_be_searched(models, pictures, tmp_path):
    model = models["retrieval"]
    (tmp_path / "a.png").write_text("none")
    for images, message in (
        (tmp_path / "nowhere", "nowhere': no such folder"),
        (pictures[0], "is a file; name the folder that it is in"),
        (tmp_path, "images: none of 1 can be read; the first: "),
        ([], "images=[]: is an empty list"),
        (3, "images: must be a folder, a list of images or a gallery, not int"),
        (models["pretrain"].gallery(pictures[:1]), "this gallery was made by another model"),
    ):
        with pytest.raises(UserError) as caught:
            model.search(images, TEXTS[0])
        assert message in str(caught.value)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"holds no image file \(\.jpg, "):
        model.search(tmp_path, TEXTS[0])


def test_a_score_that_is_no_number_is_told(models, pictures, monkeypatch):
    model = models["retrieval"]
    monkeypatch.setattr(model.task, "asked", lambda: {"match": lambda logits: logits["itm"][:, 0] * torch.nan})
    for ask in (lambda: model.search(pictures, TEXTS[0]), lambda: model.match(pictures[0], TEXTS[0])):
        with pytest.raises(UserError, match=r"is not finite; load the model with precision='fp32'"):
            ask()
