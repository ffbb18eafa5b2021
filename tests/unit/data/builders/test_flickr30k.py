"""Flickr30K from Karpathy's file; and files of the same format of other data sets."""

import json
from pathlib import Path

import pytest

from pixelbert_plugin.errors import UserError
from unit.data.test_samples import official


def record(number: int, split: str, texts: list[str], **keys) -> dict:
    sentences = [
        {"tokens": text.split(), "raw": text, "imgid": number, "sentid": 5 * number + n} for n, text in enumerate(texts)
    ]
    return {"sentids": [], "imgid": number, "sentences": sentences, "split": split, "filename": f"10{number}.jpg", **keys}


def write(root: Path, images: list[dict]) -> Path:
    path = root / "flickr30k/dataset_flickr30k.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    return path


IMAGES = [record(0, "train", ["a", "b"]), record(1, "val", ["c"]), record(2, "train", ["d"]), record(3, "test", ["e"])]


def test_samples_of_the_official_file(tmp_path):
    write(tmp_path, IMAGES)
    source = official("flickr30k", tmp_path)
    assert [(sample.sample_id, sample.image_ids, sample.text) for sample in source.samples("train")] == [
        (0, (0,), "a"),
        (1, (0,), "b"),
        (10, (2,), "d"),
    ]
    assert source.samples("train")[2].images == (tmp_path / "flickr30k/flickr30k-images/102.jpg",)
    assert [sample.text for split in ("val", "test") for sample in source.samples(split)] == ["c", "e"]
    assert source.count("train", source.samples("train")) == {"samples": 3, "images": 2}


def test_a_file_of_another_data_set_loads(tmp_path):
    """COCO's names a folder for each image and has restval; a homemade one has no ids and no tokens."""
    coco = [
        record(0, "train", ["a"], filepath="train2014", cocoid=9),
        record(1, "restval", ["b"], filepath="val2014", cocoid=3),
    ]
    write(tmp_path, coco)
    source = official("flickr30k", tmp_path, images="coco", splits={"train": ["train", "restval"]})
    assert [(s.sample_id, s.image_ids, s.images[0]) for s in source.samples("train")] == [
        (0, (0,), tmp_path / "coco/train2014/100.jpg"),
        (5, (1,), tmp_path / "coco/val2014/101.jpg"),
    ]
    plain = [{"filename": f"{name}.jpg", "split": "train", "sentences": [{"raw": "x"}, {"raw": "y"}]} for name in "pq"]
    write(tmp_path, [*plain, {"filename": "r.jpg", "split": "val", "sentences": [{"raw": "z"}]}])
    source = official("flickr30k", tmp_path, images="")
    assert [(s.sample_id, s.image_ids, s.text, s.images[0].name) for s in source.samples("train")] == [
        (0, (0,), "x", "p.jpg"),
        (1, (0,), "y", "p.jpg"),
        (2, (1,), "x", "q.jpg"),
        (3, (1,), "y", "q.jpg"),
    ]
    assert [(s.sample_id, s.image_ids) for s in source.samples("val")] == [(4, (2,))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[2]["sentences"][0].update(sentid=1), "sentence 1 is duplicated"),
        (lambda images: images[2]["sentences"][0].pop("raw"), "entry 2 has no 'raw'"),
        (lambda images: images[2].pop("filename"), "entry 2 has no 'filename'"),
        (lambda images: images[0].update(split=3), "entry 0: 'split' is 3, of another type"),
        (lambda images: images[0].pop("sentences"), "entry 0 has no 'sentences'"),
        (lambda images: images[2].update(imgid=[2]), r"entry 2: 'imgid' is \[2\], of another type"),
        (lambda images: images[2].update(imgid="x"), r"image ids: id 'x' after ids of another type"),
        (lambda images: images[2].update(imgid=images[0]["imgid"]), r"image \d+ is .* and also .*; texts of the one would"),
    ],
)
def test_damaged_files_are_named(tmp_path, change, message):
    images = json.loads(json.dumps(IMAGES))
    change(images)
    write(tmp_path, images)
    with pytest.raises(UserError, match=message):
        official("flickr30k", tmp_path).samples("train")


def test_sentences_without_a_word_are_left_out_and_counted(tmp_path, caplog):
    write(tmp_path, IMAGES)
    before = [sample.sample_id for sample in official("flickr30k", tmp_path).samples("train")]
    images = json.loads(json.dumps(IMAGES))
    images[2]["sentences"][0].update(raw="  ")
    write(tmp_path, images)
    after = [sample.sample_id for sample in official("flickr30k", tmp_path).samples("train")]
    assert after == [number for number in before if number != 10]
    assert "dataset_flickr30k.json: 1 captions without a word were left out" in caplog.text


def test_unknown_splits_are_refused(tmp_path):
    write(tmp_path, IMAGES)
    source = official("flickr30k", tmp_path, splits={"train": ["train", "tets"]})
    with pytest.raises(UserError, match=r"^dataset_config.flickr30k.splits.train: 'tets': .* no such split; did you mean test"):
        source.samples("train")
    with pytest.raises(UserError, match=r"^dataset_config.flickr30k.splits.tset: no such split \(known: train, val, test\)"):
        source.samples("tset")
    with pytest.raises(UserError, match=r"flickr30k.karpathy='.*': no such file; datasets/flickr30k/README.md"):
        official("flickr30k", tmp_path / "nowhere").samples("train")
