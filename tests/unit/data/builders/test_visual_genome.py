"""Visual Genome's regions: what is kept, and that images of COCO's and Flickr30K's test sets are not."""

import json
import logging
from pathlib import Path

import pytest
from conftest import damage

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from unit.data.test_samples import official

# (image, folder, coco_id, flickr_id)
IMAGES = [
    (1, "VG_100K_2", None, None),
    (2, "VG_100K", 42, 111),  # COCO's val
    (3, "VG_100K", 9, 222),  # COCO's train
    (4, "VG_100K", None, 333),  # Flickr30K's test
    (5, "VG_100K", 74, 333),  # COCO's test, and Flickr30K's
    (6, "VG_100K_2", None, "444"),  # Flickr30K's train
    (7, "VG_100K", "42", None),  # an id as a text
]
COCO = {42: "val", 9: "train", 74: "test", 73: "restval"}
FLICKR = {"333": "test", "444": "train", "555": "val"}


def write_images(root: Path, listed: list[tuple]) -> None:
    """All but the texts: the images as IMAGES has them, and which of them COCO and Flickr30K test on."""
    folder = root / "visual_genome"
    folder.mkdir(exist_ok=True)
    images = [
        {
            "image_id": image,
            "url": f"https://x.org/rak248/{place}/{image}.jpg",
            "coco_id": coco,
            "flickr_id": flickr,
            "width": 5,
        }
        for image, place, coco, flickr in listed
    ]
    (folder / "image_data.json").write_text(json.dumps(images))
    for name, splits, key in (("coco/dataset_coco", COCO, "cocoid"), ("flickr30k/dataset_flickr30k", FLICKR, "x")):
        path = root / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        content = [{"filename": f"{image}.jpg", "split": split, key: image} for image, split in splits.items()]
        path.write_text(json.dumps({"images": content}))


def write(root: Path, regions: dict[int, list[str]] | None = None) -> None:
    """`regions`: each image's phrases; without, two for every image."""
    write_images(root, IMAGES)
    regions = regions or {image: [f"left of {image}", f"right of {image}"] for image, *_ in IMAGES}
    records = [
        {
            "id": image,
            "regions": [
                {
                    "region_id": 100 * image + number,
                    "image_id": image,
                    "phrase": phrase,
                    "x": 0,
                    "y": 0,
                    "width": 1,
                    "height": 1,
                }
                for number, phrase in enumerate(phrases)
            ],
        }
        for image, phrases in regions.items()
    ]
    (root / "visual_genome/region_descriptions.json").write_text(json.dumps(records))


def ids(samples) -> list[int]:
    return list(dict.fromkeys(sample.image_ids[0] for sample in samples))


def test_samples_and_images(tmp_path, caplog):
    write(tmp_path)
    source = official("visual_genome", tmp_path)
    with caplog.at_level(logging.INFO):
        samples = source.samples("train")
    assert [(sample.sample_id, sample.image_ids, sample.text) for sample in samples][:3] == [
        (100, (1,), "left of 1"),
        (101, (1,), "right of 1"),
        (300, (3,), "left of 3"),
    ]
    assert samples[0].images == (tmp_path / "visual_genome/VG_100K_2/1.jpg",)
    assert samples[2].images == (tmp_path / "visual_genome/VG_100K/3.jpg",)
    assert ids(samples) == [1, 3, 6]
    assert (
        "left out of 7 images: 3 in COCO's val and test, 1 in Flickr30K's; with them 8 regions; and 0 regions without a phrase"
        in caplog.text
    )
    assert source.count("train", samples) == {
        "samples": 6,
        "images": 3,
        "listed_images": 7,
        "coco_images": 3,
        "flickr30k_images": 1,
        "left_out_regions": 8,
        "empty_regions": 0,
    }


@pytest.mark.parametrize(
    ("coco", "flickr", "kept"),
    [(True, False, [1, 3, 4, 6]), (False, True, [1, 2, 3, 6, 7]), (False, False, [1, 2, 3, 4, 5, 6, 7])],
)
def test_each_exclusion_can_be_left_off(tmp_path, coco, flickr, kept):
    write(tmp_path)
    off = {"exclude_coco": None} if not coco else {}
    off |= {"exclude_flickr30k": None} if not flickr else {}
    source = official("visual_genome", tmp_path, **off)
    assert ids(source.samples("train")) == kept
    assert len(source.files("train")) == 2 + coco + flickr


def test_ids_exclude_whatever_their_form(tmp_path):
    """Karpathy's file without cocoid names the file; a table's numbers come as 42.0."""
    write(tmp_path)
    before = ids(official("visual_genome", tmp_path).samples("train"))

    def by_name(content):
        for image in content["images"]:
            image["filename"] = f"COCO_val2014_{image.pop('cocoid'):012d}.jpg"

    damage(tmp_path / "coco/dataset_coco.json", by_name)
    damage(
        tmp_path / "visual_genome/image_data.json",
        lambda c: [row.update(coco_id=row["coco_id"] and float(row["coco_id"])) for row in c],
    )
    damage(
        tmp_path / "visual_genome/image_data.json",
        lambda c: [row.update(flickr_id=row["flickr_id"] and float(row["flickr_id"])) for row in c],
    )
    assert ids(official("visual_genome", tmp_path).samples("train")) == before


def test_an_exclusion_that_holds_nothing_out_is_refused(tmp_path):
    write(tmp_path)
    damage(tmp_path / "coco/dataset_coco.json", lambda c: [image.update(split="train") for image in c["images"]])
    with pytest.raises(
        UserError, match=r"visual_genome.exclude_coco: 'coco/dataset_coco.json': has no image .*none would be left out"
    ):
        official("visual_genome", tmp_path).samples("train")


def test_the_first_release_has_other_names(tmp_path):
    write(tmp_path)
    before = list(official("visual_genome", tmp_path).samples("train"))
    damage(tmp_path / "visual_genome/image_data.json", lambda c: [row.update(id=row.pop("image_id")) for row in c])
    damage(
        tmp_path / "visual_genome/region_descriptions.json",
        lambda c: [region.update(id=region.pop("region_id")) for row in c for region in row["regions"]],
    )
    assert list(official("visual_genome", tmp_path).samples("train")) == before


def test_empty_phrases_are_dropped_and_counted(tmp_path, caplog):
    write(tmp_path, {1: ["a", " ", ""], 3: [], 6: ["b"]})
    with caplog.at_level(logging.INFO):
        samples = official("visual_genome", tmp_path).samples("train")
    assert [sample.sample_id for sample in samples] == [100, 600] and "and 2 regions without a phrase" in caplog.text


def test_held_out_images_are_val_and_not_train(tmp_path):
    write(tmp_path)
    source = official("visual_genome", tmp_path, num_val_images=2, exclude_coco=None, exclude_flickr30k=None)
    assert ids(source.samples("val")) == [2, 6]  # images 7·1/4 and 7·3/4 of the seven
    assert ids(source.samples("train")) == [1, 3, 4, 5, 7]
    assert source.has_split("val") and not source.has_split("test")
    with pytest.raises(UserError, match=r"visual_genome.num_val_images: 7: there are 7 images; give fewer"):
        official("visual_genome", tmp_path, num_val_images=7, exclude_coco=None, exclude_flickr30k=None).samples("train")


def test_without_held_out_images_a_mixture_does_without(tmp_path):
    write(tmp_path)
    source = official("visual_genome", tmp_path)
    assert not source.has_split("val")
    with pytest.raises(UserError, match=r"^dataset_config.visual_genome.num_val_images: 0: Visual Genome has no val split"):
        source.samples("val")
    with pytest.raises(UserError, match=r"the val split of visual_genome is empty: no data set has one"):
        Mixture.build({"visual_genome": source}, "val")


def test_the_cache_serves_both_splits_and_the_log(tmp_path, caplog):
    write(tmp_path)
    sources = [
        official("visual_genome", tmp_path, cache, num_val_images=1) for cache in (None, tmp_path / "cache", tmp_path / "cache")
    ]
    results = []
    for source in sources:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            train, val = source.samples("train"), source.samples("val")
        results.append((list(train), list(val), source.count("train", train), caplog.messages))
    assert results[0] == results[1] == results[2] and len(results[0][3]) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1
    other = official("visual_genome", tmp_path, tmp_path / "cache", num_val_images=1, exclude_coco=None)
    assert len(other.samples("train")) > len(results[0][0]) and len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "region_descriptions",
            lambda c: c[1].update(id=99),
            "entry 1 is about image 99, which is not in visual_genome/image_data",
        ),
        ("region_descriptions", lambda c: c[0]["regions"][1].pop("phrase"), "entry 0 has no 'phrase'"),
        ("region_descriptions", lambda c: c[0]["regions"][1].update(region_id=1.5), "entry 0: 'region_id' is 1.5, of another"),
        (
            "region_descriptions",
            lambda c: c[0]["regions"][1].update(region_id="x"),
            "descriptions.json: sample ids: id 'x' after",
        ),
        ("region_descriptions", lambda c: c.insert(0, None), "entry 0 has no 'image_id'"),
        ("image_data", lambda c: c[3].update(url="4.jpg"), "entry 3: 'url' is '4.jpg', which names no folder and file"),
        ("region_descriptions", lambda c: c[2].pop("regions"), "entry 2 has no 'regions'"),
        ("image_data", lambda c: c.append(c[0]), "image 1 is duplicated"),
        ("image_data", lambda c: c[3].pop("url"), "entry 3 has no 'url'"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, change, message):
    write(tmp_path)
    damage(tmp_path / f"visual_genome/{name}.json", change)
    with pytest.raises(UserError, match=message):
        official("visual_genome", tmp_path).samples("train")


def test_a_file_cut_off_names_its_line(tmp_path):
    write(tmp_path)
    path = tmp_path / "visual_genome/region_descriptions.json"
    text = json.dumps(json.loads(path.read_text()), indent=1)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(
        UserError, match=rf"regions: .*json, line {text[: len(text) // 2].count(chr(10)) + 1}, column \d+: broken"
    ):
        official("visual_genome", tmp_path).samples("train")


def test_repeated_region_ids_are_refused(tmp_path):
    write(tmp_path)
    damage(tmp_path / "visual_genome/region_descriptions.json", lambda c: c[0]["regions"][1].update(region_id=300))
    with pytest.raises(
        UserError, match=r"the train split of visual_genome has several samples of id \d+ \(files: .*region_descriptions.json"
    ):
        Mixture.build({"visual_genome": official("visual_genome", tmp_path)}, "train")
