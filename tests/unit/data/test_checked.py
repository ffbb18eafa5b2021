"""What plugins' builders give by mistake: one line with data set, split and row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixelbert_plugin.data.checked import checked
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample
from unit.data.test_mixture import Lazy, ListBuilder

GOOD = Sample(
    sample_id=7, image_ids=(1,), images=(Path("a.jpg"),), text="why?", answers=("yes",), answer="yes", groups={"kind": "x"}
)
BAD = [
    ({"text": None}, "text is None, of type NoneType, not str"),
    ({"text": 7}, "text is 7, of type int, not str"),
    ({"text": b"why"}, "text is b'why', of type bytes, not str"),
    ({"text": "\ud83d why"}, r"text is '\\ud83d why', which holds half a surrogate pair and is no text"),
    ({"sample_id": None}, "sample_id is None, of type NoneType, not int or str"),
    ({"sample_id": [1]}, r"sample_id is \[1\], of type list"),
    ({"sample_id": True}, "sample_id is True, of type bool"),
    ({"sample_id": 1.0}, "sample_id is 1.0, of type float"),
    ({"sample_id": "\udc00"}, "sample_id is .* half a surrogate pair"),
    ({"images": None}, "images is None, not a tuple$"),
    ({"images": "a.jpg"}, r"images is 'a.jpg', not a tuple; a tuple of one value is written \(value,\)"),
    ({"images": Path("a.jpg")}, "images is .*a.jpg.*, not a tuple; a tuple of one"),
    ({"images": (), "image_ids": ()}, "has 0 images and 0 image_ids"),
    ({"images": ("a", "b")}, "has 2 images and 1 image_ids; give one id to each image"),
    ({"images": (None,)}, r"images\[0\] is None, of type NoneType, not a path"),
    ({"images": ("a\0b",)}, r"images\[0\] is .*, which is no path"),
    ({"images": ("",)}, r"images\[0\] is '', which is no path"),
    ({"image_ids": 1}, "image_ids is 1, not a tuple; a tuple of one"),
    ({"answers": "yes"}, "answers is 'yes', not a tuple; a tuple of one"),
    ({"answers": None}, "answers is None, not a tuple"),
    ({"answers": ("yes", 2)}, r"answers\[1\] is 2, of type int, not str"),
    ({"answer": 2}, "answer is 2, of type int"),
    ({"groups": None}, "groups is None, not a dict"),
    ({"groups": {"kind": 3}}, r"groups\['kind'\] is 3, of type int"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_sample_is_named_with_its_row(changes, message):
    samples = [replace(GOOD, sample_id=n) for n in range(3)]
    samples[2] = replace(samples[2], **changes)
    place = r"^datasets: row 2 of the train split of mine \(builder .*test_mixture.py:\d+\): "
    with pytest.raises(UserError, match=place + message) as error:
        Mixture.build({"mine": ListBuilder(samples)}, "train")
    str(error.value).encode()
    assert "\n" not in str(error.value)


class Failing(Lazy):
    """Makes its samples as they are asked for, but for one."""

    def __getitem__(self, index):
        if index == 2:
            raise self.error
        return super().__getitem__(index)


def failing(samples, error):
    yield from samples[:2]
    raise error


@pytest.mark.parametrize("error", [KeyError("caption"), IndexError("list index out of range"), ValueError("a\nb")])
@pytest.mark.parametrize("kind", ["sequence", "generator"])
def test_what_a_row_raises_is_one_line(error, kind):
    samples = [replace(GOOD, sample_id=n) for n in range(4)]
    if kind == "sequence":
        lazy = Failing(samples)
        lazy.error = error
    else:
        lazy = failing(samples, error)
    message = (
        rf"^datasets: row 2 of the train split of mine \(.*\): failed with {type(error).__name__}: .*; --debug shows where$"
    )
    with pytest.raises(UserError, match=message):
        Mixture.build({"mine": ListBuilder(lazy)}, "train")


def test_an_image_of_two_files_is_one_line():
    samples = [GOOD, replace(GOOD, sample_id=8), replace(GOOD, sample_id=9, images=(Path("b.jpg"),))]
    message = r"^datasets: row 2 of the train split of mine \(.*\): image 1 is a.jpg and also b.jpg; .* an id of its own$"
    with pytest.raises(UserError, match=message):
        Mixture.build({"mine": ListBuilder(samples)}, "train")


def test_what_can_be_meant_in_one_way_only_is_put_right():
    odd = replace(GOOD, sample_id=np.int64(7), images=["a.jpg"], image_ids=[np.int32(1)], answers=["yes"])
    mixture = Mixture.build({"mine": ListBuilder([odd])}, "train")
    assert mixture[0] == GOOD and type(mixture[0].sample_id) is int and type(mixture[0].image_ids[0]) is int
    assert Mixture.build({"mine": ListBuilder([GOOD])}, "train")[0] == GOOD
    assert checked(GOOD) is GOOD


def test_a_builder_that_gives_no_samples():
    for samples, message in (
        ([{"text": "a"}], r"row 0 of the train split of mine .* is {'text': 'a'}, not a Sample"),
        ((GOOD for _ in range(2)), "the train split of mine has several samples of id 7"),
        (None, r"the train split of mine .* is None; samples\(split\) must return a list of Sample, or yield them"),
        ("text", r"row 0 of the train split of mine .* is 't', not a Sample"),
        ((), "the train split of mine is empty"),
        (iter(()), "the train split of mine is empty"),
        ([], "the train split of mine is empty"),
    ):
        with pytest.raises(UserError, match=message):
            Mixture.build({"mine": ListBuilder(samples)}, "train")
