"""NLVR2 from files of JSON lines in the official format."""

import json
from pathlib import Path

import pytest

from pixelbert_plugin.errors import UserError
from unit.data.test_samples import official


def statement(identifier: str, label="True", **keys) -> dict:
    record = {"sentence": f"Statement {identifier}.", "left_url": "l", "right_url": "r", "identifier": identifier, **keys}
    return record if label is None else {**record, "label": label}


def write(root: Path, name: str, records: list) -> Path:
    path = root / "nlvr2/data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


DEV = [statement("dev-850-0-0", "False"), statement("dev-850-0-1"), statement("dev-850-1-0")]


def test_samples_of_the_official_files(tmp_path):
    write(tmp_path, "dev.json", DEV)
    write(tmp_path, "train.json", [statement("train-10171-3-0", directory=61)])
    write(tmp_path, "balanced/balanced_dev.json".replace("/", "_"), [])
    source = official("nlvr2", tmp_path)
    dev = source.samples("val")
    assert list(dev) == list(source.samples("dev"))
    assert [sample.sample_id for sample in dev] == ["dev-850-0-0", "dev-850-0-1", "dev-850-1-0"]
    assert dev[0].text == "Statement dev-850-0-0."
    assert (dev[0].answer, dev[0].answers, dev[1].answer, dev[0].groups) == ("False", ("False",), "True", {})
    assert dev[0].image_ids == dev[1].image_ids == ("dev-850-0-img0", "dev-850-0-img1")
    folder = tmp_path / "nlvr2/images"
    assert dev[2].images == (folder / "dev/dev-850-1-img0.png", folder / "dev/dev-850-1-img1.png")
    train = source.samples("train")
    assert train[0].images == (folder / "train/61/train-10171-3-img0.png", folder / "train/61/train-10171-3-img1.png")
    assert source.count("val", dev) == {"samples": 3, "images": 4}
    assert [sample.sample_id for sample in dev] == ["dev-850-0-0", "dev-850-0-1", "dev-850-1-0"]
    assert dev.images_M.tolist() == [0, 0, 1]


def test_the_subsets_have_the_images_of_their_split(tmp_path):
    (tmp_path / "nlvr2/data/balanced").mkdir(parents=True)
    write(tmp_path, "balanced/balanced_test1.json", [statement("test1-0-0-1")])
    sample = official("nlvr2", tmp_path, use={"test": "balanced_test1"}).samples("test")[0]
    assert sample.images[0] == tmp_path / "nlvr2/images/test1/test1-0-0-img0.png"


def test_other_layouts_are_a_pattern(tmp_path):
    write(tmp_path, "train.json", [statement("train-1-0-0", directory="7")])
    splits = {"train": [{"statements": "nlvr2/data/train.json", "images": "all/{stem}-img{side}.png"}]}
    assert (
        official("nlvr2", tmp_path, splits=splits, use={}).samples("train")[0].images[1] == tmp_path / "all/train-1-0-img1.png"
    )


def test_labels_may_be_missing_or_spelled_otherwise_but_not_anything(tmp_path):
    write(tmp_path, "test1.json", [statement(f"test1-{n}-0-0", label) for n, label in enumerate(("true", False, "False"))])
    samples = official("nlvr2", tmp_path).samples("test")
    assert [(sample.answer, sample.answers) for sample in samples] == [
        ("True", ("True",)),
        ("False", ("False",)),
        ("False", ("False",)),
    ]
    write(tmp_path, "test1.json", [statement(f"test1-{n}-0-0", None) for n in range(2)])
    assert [sample.answers for sample in official("nlvr2", tmp_path).samples("test")] == [(), ()]
    for labels, told in (
        (("True", None), "no label, and lines before have"),
        ((None, "True"), "the label True, and lines before have none"),
    ):
        write(tmp_path, "test1.json", [statement(f"test1-{n}-0-0", label) for n, label in enumerate(labels)])
        with pytest.raises(UserError, match=f"test1.json, line 2: test1-1-0-0 has {told}; give all lines one, or none"):
            official("nlvr2", tmp_path).samples("test")
    write(tmp_path, "test1.json", [statement("test1-0-0-0"), statement("test1-1-0-0", "maybe")])
    with pytest.raises(UserError, match=r"test1.json, line 2: the label of test1-1-0-0 is 'maybe', neither True nor False"):
        official("nlvr2", tmp_path).samples("test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"identifier": ', r"^dataset_config.nlvr2.splits.dev\[0\].statements: .*dev.json, line 4, column 16: broken JSON"),
        (json.dumps(DEV[0]), "line 4: dev-850-0-0 is duplicated"),
        (json.dumps(statement("dev-850-0")), "line 4: identifier 'dev-850-0' is not split-set-pair-sentence"),
        ('{"identifier": "dev-1-0-0"}', "line 4 has no 'sentence'"),
        ("[1]", "line 4 has no 'identifier'"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = write(tmp_path, "dev.json", DEV)
    path.write_text(path.read_text() + line)
    with pytest.raises(UserError, match=message):
        official("nlvr2", tmp_path).samples("val")


def test_train_without_its_directory_is_named(tmp_path):
    write(tmp_path, "train.json", [statement("train-1-0-0")])
    with pytest.raises(UserError, match="line 1 has no 'directory'"):
        official("nlvr2", tmp_path).samples("train")


@pytest.mark.parametrize("missing", ["stem", "side"])
def test_a_pattern_that_cannot_tell_images_apart_is_refused(tmp_path, missing):
    write(tmp_path, "dev.json", DEV)
    images = "nlvr2/{stem}-{side}.png".replace(f"{{{missing}}}", "x")
    source = official("nlvr2", tmp_path, splits={"dev": [{"statements": "nlvr2/data/dev.json", "images": images}]})
    with pytest.raises(
        UserError, match=rf"^dataset_config.nlvr2.splits.dev\[0\].images: .*without {{{missing}}} two images would"
    ):
        source.samples("dev")
