"""The check of a data folder: whole, and with each thing that can be wrong."""

import io
import json
import os
import re
import signal

import pytest
from conftest import draw_image
from rich.console import Console

from pixelbert_plugin import registry
from pixelbert_plugin.data import decode_all
from pixelbert_plugin.data.check import CheckRow, check
from pixelbert_plugin.data.decode_all import DecodedImages
from pixelbert_plugin.system import progress
from unit.data.test_samples import official

CAPTIONS = {"train": ["a", "b", "c"], "val": ["d"]}  # one caption of each image


@pytest.fixture
def root(tmp_path):
    """A Flickr30K of three training images and one of val."""
    images = []
    for split, texts in CAPTIONS.items():
        for text in texts:
            images.append({"filename": f"{text}.jpg", "split": split, "sentences": [{"raw": text, "sentid": len(images)}]})
            draw_image(tmp_path / f"flickr30k/flickr30k-images/{text}.jpg", "red", len(images), (64, 48))
    (tmp_path / "flickr30k/dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    return tmp_path


def rows_of(root, run_splits=("train",), **changes) -> list[CheckRow]:
    counts = {"train": {"samples": 3, "images": 3}}
    builder = official("flickr30k", root, **{"counts": counts, **changes})
    return check({"flickr30k": builder}, list(run_splits), registry.build("processor", "image", {}, "i"))


def found(rows) -> dict[str, tuple[str, str]]:
    return {row.what: (row.status, row.detail) for row in rows}


def test_a_whole_folder_is_ok(root):
    rows = rows_of(root, ("train", "val"))
    file, image = root / "flickr30k/dataset_flickr30k.json", root / "flickr30k/flickr30k-images/a.jpg"
    assert {row.status for row in rows} == {"ok"} and {row.dataset for row in rows} == {"flickr30k"}
    assert found(rows[:5]) == {
        str(file): ("ok", f"{len(file.read_bytes())} bytes"),
        "samples": ("ok", "3, as published"),
        "images": ("ok", "3, as published"),
        "image files": ("ok", "3"),
        "one image": ("ok", f"{image}: 64 × 48 pixels"),
    }
    assert found(rows[5:])["samples"] == ("ok", "1 (no published number)") and rows[5].split == "val"


def test_a_missing_file_is_named_with_its_key_and_the_other_splits_go_on(root):
    (root / "flickr30k/dataset_flickr30k.json").unlink()
    rows = rows_of(root, ("train", "val"))
    assert [row.status for row in rows] == ["missing"] * 4
    assert "dataset_config.flickr30k.karpathy: no such file; datasets/flickr30k/README.md" in rows[0].detail
    assert rows[1].what == "samples" and rows[3].split == "val"


def test_all_missing_files_are_rows(tmp_path):
    rows = check({"coco": official("coco", tmp_path)}, ["train"], None)
    assert [row.what.split("/")[-1] for row in rows[:3]] == [
        "captions_train2014.json",
        "captions_val2014.json",
        "dataset_coco.json",
    ]
    assert [row.status for row in rows] == ["missing"] * 4


def test_other_counts_differ(root):
    rows = found(rows_of(root, counts={"train": {"samples": 145000, "images": 3, "picturs": 1}}))
    assert rows["samples"] == ("differs", "3, published: 145,000") and rows["images"][0] == "ok"
    assert rows["picturs"][0] == "broken" and "flickr30k.counts.train.picturs: no such count" in rows["picturs"][1]
    assert rows["one image"][0] == "ok"


def test_missing_images_are_counted_and_the_first_named(root):
    folder = root / "flickr30k/flickr30k-images"
    (folder / "a.jpg").unlink()
    (folder / "c.jpg").unlink()
    rows = found(rows_of(root))
    assert rows["image files"] == ("missing", f"2 of 3 are not there: {folder / 'a.jpg'}, {folder / 'c.jpg'}")
    assert rows["one image"] == ("ok", f"{folder / 'b.jpg'}: 64 × 48 pixels")
    rows = found(rows_of(root, images="nowhere"))
    assert rows["image files"][1].startswith("3 of 3 are not there") and rows["one image"] == ("missing", "none to decode")


def test_a_broken_image_and_a_broken_file_are_rows(root):
    (root / "flickr30k/flickr30k-images/a.jpg").write_bytes(b"no image")
    rows = found(rows_of(root))
    assert rows["image files"][0] == "ok" and rows["one image"][0] == "broken" and "not a readable" in rows["one image"][1]
    (root / "flickr30k/dataset_flickr30k.json").write_text('{"images": [{"filename": ')
    rows = rows_of(root)
    assert [row.status for row in rows] == ["ok", "broken"] and "line 1" in rows[1].detail and "broken JSON" in rows[1].detail


def test_a_data_sets_own_split_is_named(root):
    rows = rows_of(root, ("val", "test"), use={"val": "train"}, splits={"train": ["train"], "test": []})
    assert {row.split for row in rows} == {"val (train)", "test"}
    assert rows[-1] == CheckRow("flickr30k", "test", "split", "ok", "the data set has none")


def test_wrong_options_are_a_row(root):
    rows = rows_of(root, ("train", "val"), use={"train": "trian"})
    assert rows[0].status == "broken" and "flickr30k.use.train: 'trian': no such split" in rows[0].detail
    assert {row.status for row in rows[1:]} == {"ok"}


def test_a_plugins_plain_list_is_checked_too(root):
    builder = official("flickr30k", root, counts={})
    plain = list(builder.samples("train"))
    builder.samples = lambda split: plain
    builder.count = lambda split, samples: 1 / 0
    rows = check({"mine": builder}, ["train"], registry.build("processor", "image", {}, "i"))
    assert [row.status for row in rows] == ["ok", "broken"] and "ZeroDivisionError" in rows[1].detail
    builder.count = lambda split, samples: {"samples": len(samples)}
    assert found(check({"mine": builder}, ["train"], registry.build("processor", "image", {}, "i")))["image files"] == (
        "ok",
        "3",
    )


def decoded() -> tuple[DecodedImages, io.StringIO]:
    """And what it tells."""
    told = io.StringIO()
    console = Console(file=told, width=200)
    return DecodedImages(registry.build("processor", "image", {}, "i"), console, num_processes=2), told


def rows_decoded(root, how, splits=("train", "val")) -> dict:
    builder = official("flickr30k", root, counts={})
    rows = check({"flickr30k": builder}, list(splits), registry.build("processor", "image", {}, "i"), decoded=how)
    return {(row.split, row.what): (row.status, row.detail) for row in rows}


def test_every_image_is_decoded_and_the_bad_ones_are_named(root, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0)
    monkeypatch.setattr(decode_all, "CHUNK", 2)
    folder = root / "flickr30k/flickr30k-images"
    how, told = decoded()
    assert rows_decoded(root, how)["train", "every image"] == ("ok", "3 decoded") and how.bad == {}
    assert re.match(r"flickr30k train: 3 images: (33.3|66.7) % after 0 s, 0 s left\n", told.getvalue())
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
    (folder / "d.jpg").write_bytes(b"")
    how, _ = decoded()
    rows = rows_decoded(root, how)
    assert rows["train", "every image"] == ("broken", f"1 of 3 cannot be read: {folder / 'b.jpg'}")
    assert rows["val", "every image"][0] == "broken" and set(how.bad) == {folder / "b.jpg", folder / "d.jpg"}
    assert "d.jpg: not a readable image (0 bytes; the file is empty)" in how.bad[folder / "d.jpg"]


def test_no_image_need_be_decoded(root):
    (root / "flickr30k/flickr30k-images/a.jpg").write_bytes(b"")
    rows = rows_decoded(root, "none")
    assert rows["train", "image files"] == ("ok", "3") and not {what for _, what in rows} & {"one image", "every image"}


def test_a_decoder_that_ends_its_process_is_found_out(root, monkeypatch):
    """None is known; it would be one that nobody has met yet."""
    (how, _), folder = decoded(), root / "flickr30k/flickr30k-images"

    def decode(self, path):
        if path.name == "b.jpg":
            os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(type(registry.build("processor", "image", {}, "i")), "decode", decode)
    assert how.decode([folder / f"{name}.jpg" for name in "abc"], "t") == [folder / "b.jpg"]
    assert how.bad == {folder / "b.jpg": f"{folder / 'b.jpg'}: the process that read it ended"}


def test_a_pipe_in_an_images_place_is_missing(root):
    path = root / "flickr30k/flickr30k-images/a.jpg"
    path.unlink()
    os.mkfifo(path)
    assert rows_decoded(root, "sample")["train", "image files"] == ("missing", f"1 of 3 are not there: {path}")
