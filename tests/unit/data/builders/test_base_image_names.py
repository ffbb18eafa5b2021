"""Names of images that lead out of their folder are refused in every data set's files, unless that is asked for."""

import json
from pathlib import Path

import pytest

from pixelbert_plugin.data.check import check
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample
from unit.data.builders.test_coco import TRAIN, VAL, write_captions, write_karpathy
from unit.data.builders.test_flickr30k import record
from unit.data.builders.test_flickr30k import write as write_flickr30k
from unit.data.builders.test_nlvr2 import statement
from unit.data.builders.test_nlvr2 import write as write_nlvr2
from unit.data.builders.test_visual_genome import write as write_visual_genome
from unit.data.test_mixture import ListBuilder
from unit.data.test_samples import official

OUTSIDE = ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg"]


def flickr30k(root: Path, name: str) -> dict:
    write_flickr30k(root, [record(0, "train", ["a"], filename=name)])
    return {}


def flickr30k_folder(root: Path, name: str) -> dict:
    write_flickr30k(root, [record(0, "train", ["a"], filepath=name)])
    return {}


def coco(root: Path, name: str) -> dict:
    write_captions(root, "train2014", TRAIN, file_name=name)
    return {"splits": {"train": [{"captions": "coco/annotations/captions_train2014.json", "images": "coco/train2014"}]}}


def coco_pattern(root: Path, name: str) -> dict:
    write_captions(root, "train2014", TRAIN, file_name=name)
    images = "coco/train2014/{file_name}"
    return {"splits": {"train": [{"captions": "coco/annotations/captions_train2014.json", "images": images}]}}


def vqa2(root: Path, name: str) -> dict:
    questions = [{"question_id": 1, "image_id": name, "question": "what?"}]
    (root / "questions.json").write_text(json.dumps({"questions": questions}))
    return {"splits": {"train": [{"questions": "questions.json", "images": "images/{image_id}"}]}}


def nlvr2(root: Path, name: str) -> dict:
    write_nlvr2(root, "train.json", [statement("train-1-0-0", directory=name)])
    return {}


def nlvr2_stem(root: Path, name: str) -> dict:
    write_nlvr2(root, "train.json", [statement(f"{name}/train-1-0-0", directory=1)])
    return {}


def visual_genome(root: Path, name: str) -> dict:
    write_visual_genome(root)
    path = root / "visual_genome/image_data.json"
    images = json.loads(path.read_text())
    images[5]["url"] = f"https://x.org/{name}"
    path.write_text(json.dumps(images))
    return {"exclude_coco": None, "exclude_flickr30k": None}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [flickr30k, flickr30k_folder, coco, coco_pattern, vqa2, nlvr2, nlvr2_stem])
def test_each_builder_refuses_them_and_check_says_so(tmp_path, make, name):
    options, dataset = make(tmp_path, name), make.__name__.split("_")[0]
    source = official(dataset, tmp_path, tmp_path / "cache", **options)
    message = rf"(entry|image|line) \d+: image '.*secret\.jpg.* is outside .* dataset_config\.{dataset}\.outside_images=true"
    with pytest.raises(UserError, match=message):
        source.samples("train")
    rows = check({dataset: source}, ["train"], None)
    assert [row.status for row in rows if row.what == "samples"] == ["broken"] and "outside_images" in rows[-1].detail
    allowed = official(dataset, tmp_path, tmp_path / "cache", outside_images=True, **options)
    assert "secret.jpg" in str(allowed.samples("train")[0].images[0])
    with pytest.raises(UserError, match="outside_images"):  # the cache of what was allowed is no way round it
        source.samples("train")


def test_visual_genomes_two_last_parts_of_the_address_too(tmp_path):
    source = official("visual_genome", tmp_path, **visual_genome(tmp_path, "../secret.jpg"))
    with pytest.raises(UserError, match=r"image_data\.json: entry 5: image '\.\./secret\.jpg' is outside"):
        source.samples("train")


def test_an_allowed_absolute_name_is_that_file_and_a_link_in_the_folder_needs_no_leave(tmp_path):
    source = official("flickr30k", tmp_path, outside_images=True, **flickr30k(tmp_path, "/elsewhere/a.jpg"))
    assert source.samples("train")[0].images == (Path("/elsewhere/a.jpg"),)
    folder = tmp_path / "flickr30k/flickr30k-images"
    folder.mkdir(parents=True)
    (folder / "linked.jpg").symlink_to("/elsewhere/a.jpg")
    source = official("flickr30k", tmp_path, **flickr30k(tmp_path, "linked.jpg"))
    assert source.samples("train")[0].images == (folder / "linked.jpg",)


def test_the_folder_that_an_option_names_may_be_anywhere(tmp_path):
    source = official("flickr30k", tmp_path, images="../elsewhere", **flickr30k(tmp_path, "a..b.jpg"))
    assert source.samples("train")[0].images == (tmp_path / "../elsewhere/a..b.jpg",)


def test_a_plugins_builder_is_held_to_it_too(tmp_path):
    def samples(name):
        return [Sample(sample_id=7, image_ids=(7,), images=(tmp_path / name,), text="x")]

    with pytest.raises(
        UserError, match=r"sample 7 of mine: image '.*secret\.jpg' steps .* dataset_config\.mine\.outside_images"
    ):
        Mixture.build({"mine": ListBuilder(samples("../secret.jpg"))}, "train")
    allowed = ListBuilder(samples("../secret.jpg"))
    allowed.config.outside_images = True
    assert len(Mixture.build({"mine": allowed}, "train")) == len(Mixture.build({"mine": ListBuilder(samples("a..b"))}, "train"))


def test_karpathys_file_with_images_of_coco_is_as_before(tmp_path):
    write_captions(tmp_path, "train2014", TRAIN)
    write_captions(tmp_path, "val2014", VAL)
    write_karpathy(tmp_path, TRAIN + VAL)
    assert (
        official("coco", tmp_path).samples("train")[0].images[0] == tmp_path / "coco/train2014/COCO_train2014_000000000009.jpg"
    )
