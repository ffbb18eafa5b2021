"""COCO captions split by Karpathy's file, on files in the official format; and caption files of other people."""

import json
from pathlib import Path

import pytest

from pixelbert_plugin.errors import UserError
from unit.data.test_samples import official

# (image, Karpathy's split, captions) in each official file
TRAIN = [(9, "train", ["a dog", "a brown dog "]), (25, "train", ["two cats"])]
VAL = [(42, "val", ["a bus", "red bus"]), (73, "restval", ["a bike"]), (74, "test", ["a man"]), (133, "restval", ["a bed"])]


def write_captions(root: Path, year: str, rows: list, **image_keys) -> list[dict]:
    images = [{"id": image, "file_name": f"COCO_{year}_{image:012d}.jpg", **image_keys} for image, _, _ in rows]
    captions = [(image, text) for image, _, texts in rows for text in texts]
    annotations = [
        {"image_id": image, "id": 1000 * image + number, "caption": text} for number, (image, text) in enumerate(captions)
    ]
    content = {"info": {"year": 2014}, "images": images, "licenses": [{"id": 1}], "annotations": annotations[::-1]}
    path = root / f"coco/annotations/captions_{year}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return annotations[::-1]


def write_karpathy(root: Path, rows: list) -> None:
    images = [
        {"filename": f"{image}.jpg", "filepath": "val2014", "cocoid": image, "imgid": number, "split": split, "sentences": []}
        for number, (image, split, _) in enumerate(rows)
    ]
    (root / "coco/dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


@pytest.fixture
def root(tmp_path) -> Path:
    write_captions(tmp_path, "train2014", TRAIN, height=1, width=2)
    write_captions(tmp_path, "val2014", VAL)
    write_karpathy(tmp_path, TRAIN + VAL)
    return tmp_path


def damage(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_splits_are_karpathys(root):
    source = official("coco", root)
    train = source.samples("train")
    assert [(sample.sample_id, sample.image_ids, sample.text) for sample in train] == [
        (9001, (9,), "a brown dog "),  # images in Karpathy's order, an image's captions in the official file's
        (9000, (9,), "a dog"),
        (25002, (25,), "two cats"),
        (73002, (73,), "a bike"),
        (133004, (133,), "a bed"),
    ]
    assert train[0].images == (root / "coco/train2014/COCO_train2014_000000000009.jpg",)
    assert train[3].images == (root / "coco/val2014/COCO_val2014_000000000073.jpg",)
    assert train[0].answers == () and train[0].answer is None and train[0].groups == {}
    assert [sample.text for sample in source.samples("val")] == ["red bus", "a bus"]
    assert [sample.text for sample in source.samples("test")] == ["a man"]
    assert source.count("train", train) == {"samples": 5, "images": 4}


def test_the_published_counts_add_up():
    """train2014 has 414,113 captions and val2014 202,654; Karpathy's val and test have 25,010 each."""
    counts = official("coco", Path("nowhere")).config.counts
    assert sum(count["samples"] for count in counts.values()) == 414_113 + 202_654
    assert counts["train"]["samples"] == 414_113 + 202_654 - 2 * 25_010
    assert sum(count["images"] for count in counts.values()) == 82_783 + 40_504


def test_the_cache_gives_the_same(root, tmp_path):
    cached = [list(official("coco", root, tmp_path / "cache").samples("train")) for _ in range(2)]
    assert cached[0] == cached[1] == list(official("coco", root).samples("train"))


CAPTIONS = "coco/annotations/captions_val2014.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].update(image_id=5), "annotation 74003 is about image 5, which is not among its images"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "annotation 133004 is duplicated"),
        (lambda c: c["images"].append(c["images"][0]), "image 42 is duplicated"),
        (lambda c: c["annotations"][3].update(caption=None), "annotation 3: 'caption' is None, of another type"),
        (lambda c: c["annotations"][3].pop("id"), "annotation 3 has no 'id'"),
        (lambda c: c["images"][1].pop("file_name"), "image 1 has no 'file_name'"),
        (lambda c: c.pop("images"), "captions_val2014.json: has no 'images'; is this the official file"),
        (lambda c: c["annotations"].pop(2), r"dataset_coco.json: image 73 has no caption in .*captions_val2014.json \(1 such"),
        (lambda c: c["annotations"][0].update(id="x"), "captions_val2014.json: id 74003 after ids of another type"),
    ],
)
def test_damaged_captions_are_named(root, change, message):
    damage(root / CAPTIONS, change)
    with pytest.raises(UserError, match=message):
        official("coco", root).samples("train")


def test_captions_without_a_word_are_left_out_and_counted(root, caplog):
    before = [sample.sample_id for sample in official("coco", root).samples("train")]
    damage(root / CAPTIONS, lambda c: next(a for a in c["annotations"] if a["id"] == 73002).update(caption=" \n"))
    after = [sample.sample_id for sample in official("coco", root).samples("train")]
    assert after == [number for number in before if number != 73002]
    assert "captions_val2014.json: 1 captions without a word were left out" in caplog.text


def test_images_come_in_the_order_of_karpathys_file(root):
    """Which 1,000 of the 5,000 test images make a fold depends on it."""
    damage(root / "coco/dataset_coco.json", lambda c: c["images"].reverse())
    reverse = list(dict.fromkeys(sample.image_ids[0] for sample in official("coco", root).samples("train")))
    damage(root / "coco/dataset_coco.json", lambda c: c["images"].reverse())
    forward = list(dict.fromkeys(sample.image_ids[0] for sample in official("coco", root).samples("train")))
    assert forward[:2] == reverse[:2][::-1] and set(forward[:2]) == {9, 25}  # of train2014; then val2014's
    assert forward[2:] == reverse[2:][::-1]


def test_an_image_in_two_of_karpathys_splits_is_refused(root):
    damage(root / "coco/dataset_coco.json", lambda c: c["images"].append({**c["images"][0], "split": "test"}))
    with pytest.raises(UserError, match=r"dataset_coco.json: image \d+ is in train and also in test"):
        official("coco", root).samples("train")


def test_a_pattern_of_file_names_needs_them(root):
    damage(root / CAPTIONS, lambda c: c["images"][1].pop("file_name"))
    splits = {"train": [{"captions": CAPTIONS, "images": "pictures/{file_name}"}]}
    with pytest.raises(UserError, match="image 1 has no 'file_name'"):
        official("coco", root, karpathy=None, splits=splits).samples("train")


def test_missing_files_are_named_at_once(tmp_path):
    with pytest.raises(UserError) as error:
        official("coco", tmp_path).samples("train")
    folder = tmp_path / "coco"
    assert str(error.value) == (
        f"dataset_config.coco.splits.train[0].captions='{folder}/annotations/captions_train2014.json': no such file, "
        f"nor {folder}/annotations/captions_val2014.json, {folder}/dataset_coco.json; "
        "datasets/coco/README.md says where to get it"
    )


def test_a_caption_file_of_other_people_loads_without_karpathy(tmp_path):
    """Ids that are texts, annotations before images, images of a pattern, unknown members."""
    content = {
        "annotations": [
            {"id": "c1", "image_id": "im-b", "caption": "ein Bild"},
            {"id": "c2", "image_id": "im-a", "caption": "x"},
        ],
        "type": "captions",
        "images": [{"id": "im-a"}, {"id": "im-b", "file_name": "b.png", "license": None}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    splits = {"train": [{"captions": "mine.json", "images": "pictures/{image_id}.png"}], "val": []}
    source = official("coco", tmp_path, karpathy=None, splits=splits)
    assert [(sample.sample_id, sample.image_ids, sample.text) for sample in source.samples("train")] == [
        ("c1", ("im-b",), "ein Bild"),
        ("c2", ("im-a",), "x"),
    ]
    assert source.samples("train")[0].images == (tmp_path / "pictures/im-b.png",)
    assert source.has_split("train") and not source.has_split("val")


def test_karpathys_file_without_coco_ids_is_matched_by_file_name(root):
    def by_name(content):
        for image, (image_id, _, _) in zip(content["images"], TRAIN + VAL, strict=True):
            year = "train2014" if image_id < 40 else "val2014"
            image.update(filename=f"COCO_{year}_{image_id:012d}.jpg")
            image.pop("cocoid")

    before = list(official("coco", root).samples("train"))
    damage(root / "coco/dataset_coco.json", by_name)
    assert list(official("coco", root).samples("train")) == before
