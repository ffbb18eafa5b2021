"""PixelBertProcessor gives what the native processors give, to the last bit."""

import io
import json

import numpy as np
import pytest
import torch
from native_models import TEXTS, native
from PIL import Image

from pixelbert_plugin import UserError
from pixelbert_plugin.huggingface import PixelBertImageProcessor, PixelBertProcessor, from_native


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    loaded = native("vqa", tmp_path_factory.mktemp("native"))
    return loaded, from_native(loaded)[1]


def pictures() -> list[Image.Image]:
    draw = np.random.default_rng(1)
    sizes = [(48, 64), (400, 300), (30, 90)]  # one grows, one is reduced first, one has its longer side limited
    return [Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def test_a_batch_is_the_native_batch(both):
    loaded, processor = both
    long = "what color is the disc to the left of the red green blue disc there?"  # longer than the limit of 12
    texts = [TEXTS[0], long, TEXTS[3]]
    batch = loaded.batch(list(zip(pictures(), texts, strict=True)))
    found = processor(images=pictures(), text=texts, return_tensors="pt")
    assert set(found) == {"input_ids", "attention_mask", "pixel_values", "pixel_mask"}
    assert torch.equal(found["input_ids"], batch.input_ids) and found["input_ids"].shape[1] == 12
    assert torch.equal(found["attention_mask"].bool(), batch.text_mask)
    assert torch.equal(found["pixel_values"], batch.images)
    for mask, (height, width) in zip(found["pixel_mask"], batch.image_sizes.tolist(), strict=True):
        assert mask.sum() == height * width and mask[:height, :width].all()


def test_the_native_processor_is_as_it_was_afterwards(both):
    """A call of transformers' tokenizer leaves its padding and limit in the tokenizer that it holds."""
    loaded, processor = both
    before = loaded.processors["text"].state_dict()
    processor(images=pictures(), text=TEXTS[:3], padding="max_length", max_length=5)
    assert loaded.processors["text"].state_dict() == before and not loaded.processors["text"](TEXTS[0])[1]


def test_images_come_in_any_form(both, tmp_path):
    _, processor = both
    picture = pictures()[0]
    picture.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
    expected = processor(images=picture, return_tensors="pt")["pixel_values"]
    for image in (
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        content,
        Image.open(io.BytesIO(content)),
        np.asarray(picture),
        tensor,
    ):
        assert torch.equal(processor(images=[image], text="a disc", return_tensors="pt")["pixel_values"], expected), type(image)
    assert processor(text=["a", "a disc"], return_tensors="np")["input_ids"].shape[0] == 2
    pair = processor(images=pictures()[:2], text="two discs", return_tensors="pt")
    assert pair["pixel_values"].shape[:3] == (1, 2, 3) and pair["pixel_mask"].shape[:2] == (1, 2)


@pytest.mark.parametrize(
    "images, text, message",
    [
        (None, None, "images, text: give one of them at least"),
        (["nowhere.jpg"], "a", "nowhere.jpg: No such file"),
        ([b"no image"], "a", "the image: not a readable image"),
        ([], ["a"], "images: there is none"),
        ([[b"a", b"b"], [b"c"]], ["a", "b"], "images: each text needs as many images as the others"),
        ([np.zeros((9, 9, 3), np.uint8)] * 2, ["a", "b", "c"], "images, text: 2 images or lists of them to 3 texts"),
    ],
)
def test_what_does_not_fit_is_one_line(both, images, text, message):
    with pytest.raises(ValueError, match=message):
        both[1](images=images, text=text)


def test_options_are_those_of_the_native_processor(tmp_path):
    processor = PixelBertImageProcessor(short_edge=32, long_edge=40, horizontal_flip=0.5)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["short_edge"] == 32 and saved["horizontal_flip"] == 0.5 and saved["mean"] == [0.485, 0.456, 0.406]
    again = PixelBertImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert PixelBertImageProcessor.from_pretrained(tmp_path, short_edge=16).native.config.short_edge == 16
    with pytest.raises(TypeError, match="short_egde: no option of PixelBertImageProcessor; it has short_edge, "):
        PixelBertImageProcessor(short_egde=3)
    with pytest.raises(UserError, match="short_edge: 50 is invalid: must be at most long_edge"):
        PixelBertImageProcessor(short_edge=50, long_edge=40)
    with pytest.raises(TypeError, match="do_resize: no option of a call"):
        processor(pictures(), do_resize=False)


def test_it_is_saved_and_read(both, tmp_path):
    loaded, processor = both
    processor.save_pretrained(tmp_path)
    again = PixelBertProcessor.from_pretrained(tmp_path)
    given = {"images": pictures(), "text": TEXTS[:3], "return_tensors": "pt"}
    assert all(torch.equal(again(**given)[name], value) for name, value in processor(**given).items())
    assert again.tokenizer.model_max_length == loaded.processors["text"].max_length
