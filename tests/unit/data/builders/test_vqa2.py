"""The builder of VQA 2.0 on files in the official format, whole and damaged."""

import json
from pathlib import Path

import pytest
from conftest import IMAGES, damage

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from unit.data.test_samples import official

QUESTIONS = "vqa2/v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "vqa2/v2_mscoco_train2014_annotations.json"


def builder(root):
    node = configuration.load("projects/pixelbert/configs/vqa2.yaml").dataset_config["vqa2"]
    return registry.build("builder", "vqa2", node, "dataset_config.vqa2", data_dir=Path(root))


def test_samples_of_the_official_files(vqa2_root):
    samples = builder(vqa2_root).samples("train")
    official = json.loads((vqa2_root / QUESTIONS).read_text())["questions"]
    answers = {item["question_id"]: item for item in json.loads((vqa2_root / ANNOTATIONS).read_text())["annotations"]}
    assert len(samples) == len(official) == 3 * IMAGES["train"]
    for sample, question in zip(samples, official, strict=True):
        assert (sample.sample_id, sample.text) == (question["question_id"], question["question"])
        assert sample.image_ids == (question["image_id"],)
        assert sample.images[0] == vqa2_root / f"coco/train2014/COCO_train2014_{question['image_id']:012d}.jpg"
        annotation = answers[sample.sample_id]
        assert sample.answers == tuple(answer["answer"] for answer in annotation["answers"]) and len(sample.answers) == 10
        assert sample.answer == annotation["multiple_choice_answer"]
        assert sample.groups == {key: annotation[key] for key in ("answer_type", "question_type")}


def test_a_split_without_annotations_has_no_answers(own_vqa2_root):
    source = json.loads((own_vqa2_root / QUESTIONS).read_text())
    (own_vqa2_root / "vqa2/v2_OpenEnded_mscoco_test2015_questions.json").write_text(json.dumps(source))
    sample = builder(own_vqa2_root).samples("test")[0]
    assert sample.answers == () and sample.answer is None
    assert "coco/test2015/COCO_test2015_" in str(sample.images[0])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (ANNOTATIONS, lambda c: c["annotations"].pop(4), r"question 101001 has no answers in vqa2/v2_mscoco_train2014"),
        (ANNOTATIONS, lambda c: c["annotations"][0].update(answers=[]), r"question 100000 has no answers"),
        (
            ANNOTATIONS,
            lambda c: c["annotations"][0].update(image_id=7),
            r"question 100000 is about image 7, but .* image 100",
        ),
        (QUESTIONS, lambda c: c["questions"].pop(0), r"answers question 100000, which is not in"),
        (QUESTIONS, lambda c: c["questions"][2].pop("question"), r"questions.json: entry 2 has no 'question'"),
        (QUESTIONS, lambda c: c.pop("questions"), r"has no 'questions'; is this the official file\?"),
        (ANNOTATIONS, lambda c: c["annotations"][1].pop("question_id"), r"entry 1 has no 'question_id'"),
        (ANNOTATIONS, lambda c: c["annotations"][1].update(answers=None), r"entry 1: 'answers' is None, of another type"),
        (
            ANNOTATIONS,
            lambda c: c["annotations"][1]["answers"][3].update(answer=[2]),
            r"entry 1: 'answer' is \[2\], of another type",
        ),
        (
            ANNOTATIONS,
            lambda c: c["annotations"][1].update(multiple_choice_answer=["red"]),
            r"entry 1: 'multiple_choice_answer' is \['red'\], of another type",
        ),
        (ANNOTATIONS, lambda c: c["annotations"][1].update(answer_type={}), r"entry 1: 'answer_type' is {}, of another type"),
        (QUESTIONS, lambda c: c["questions"].append(c["questions"][0]), r"question 100000 is duplicated"),
        (ANNOTATIONS, lambda c: c["annotations"].append(c["annotations"][0]), r"question 100000 is duplicated"),
        (QUESTIONS, lambda c: c.update(questions=7), r"'questions' is 7, not a list; is this the official file"),
        (QUESTIONS, lambda c: c["questions"][2].update(question=None), r"entry 2: 'question' is None"),
        (QUESTIONS, lambda c: c["questions"][2].update(image_id=[7]), r"entry 2: 'image_id' is \[7\]"),
    ],
)
def test_damaged_files_are_named_with_the_question(own_vqa2_root, file, change, message):
    damage(own_vqa2_root / file, change)
    with pytest.raises(UserError, match=message):
        builder(own_vqa2_root).samples("train")


def test_what_an_annotation_does_not_say_is_counted_or_other(own_vqa2_root):
    changes = {"multiple_choice_answer": None, "answer_type": None, "question_type": None}
    damage(own_vqa2_root / ANNOTATIONS, lambda c: c["annotations"][0].update(changes))
    damage(own_vqa2_root / ANNOTATIONS, lambda c: c["annotations"][1].update(multiple_choice_answer=0))
    first, second, *_ = builder(own_vqa2_root).samples("train")
    assert first.answer == max(first.answers, key=first.answers.count)
    assert first.groups == {"answer_type": "other", "question_type": "none of the above"}
    assert second.answer == "0"


def test_broken_json_names_file_and_line(own_vqa2_root):
    path = own_vqa2_root / QUESTIONS
    text = json.dumps(json.loads(path.read_text()), indent=1).splitlines()
    text[7] = text[7].rstrip(",") + " oops"
    path.write_text("\n".join(text))
    with pytest.raises(UserError, match=r"questions.json, line (8|9), column \d+: broken JSON"):
        builder(own_vqa2_root).samples("train")


def test_missing_file_and_unknown_split_say_what_to_do(tmp_path):
    with pytest.raises(UserError) as error:
        builder(tmp_path).samples("train")
    assert "dataset_config.vqa2.splits.train[0].questions=" in str(error.value)
    assert "no such file" in str(error.value) and "datasets/vqa2/README.md" in str(error.value)
    with pytest.raises(UserError, match=r"splits.trian: no such split \(known: train, val, trainval, minival, .*test-dev\)"):
        builder(tmp_path).samples("trian")


def test_empty_split_and_repeated_ids_are_refused(own_vqa2_root):
    source = builder(own_vqa2_root)
    damage(own_vqa2_root / QUESTIONS, lambda c: c["questions"].clear())
    damage(own_vqa2_root / ANNOTATIONS, lambda c: c["annotations"].clear())
    with pytest.raises(UserError, match="the train split of vqa2 is empty"):
        Mixture.build({"vqa2": source}, "train")
    source.config.splits["val"] *= 2
    with pytest.raises(UserError, match=r"several samples of id \d+ \(files: .*questions.json.*\); results are kept by id"):
        Mixture.build({"vqa2": source}, "val")


def write_karpathy(root: Path, splits: dict[int, str]) -> None:
    """A Karpathy file of the images in `splits`."""
    images = [
        {"cocoid": image, "split": split, "filename": f"COCO_val2014_{image:012d}.jpg", "filepath": "val2014", "sentences": []}
        for image, split in splits.items()
    ]
    (root / "coco/dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))


KARPATHY = {900: "val", 901: "restval", 902: "test", 903: "val", 904: "restval"}


def test_trainval_and_minival_share_train_and_val_out(own_vqa2_root):
    write_karpathy(own_vqa2_root, KARPATHY)
    source = builder(own_vqa2_root)
    train, val = (list(source.samples(split)) for split in ("train", "val"))
    minival, trainval = (list(source.samples(split)) for split in ("minival", "trainval"))
    assert minival == [sample for sample in val if sample.image_ids[0] in (900, 903)] and len(minival) == 6
    assert trainval == train + [sample for sample in val if sample.image_ids[0] in (901, 902, 904)]
    source.config.use = {"train": "trainval", "val": "minival"}
    assert list(source.samples("train")) == trainval and list(source.samples("val")) == minival
    assert [path.name for _, path in source.files("val")][-1] == "dataset_coco.json"


def test_ids_may_be_texts_and_answers_numbers(own_vqa2_root):
    """As in other data sets of VQA's format (TextVQA's image ids are hashes)."""
    before = list(builder(own_vqa2_root).samples("train"))

    def as_texts(content):
        for row in content.get("questions", content.get("annotations")):
            row.update(image_id=f"{row['image_id']}", question_id=f"q{row['question_id']}")
            for answer in row.get("answers", []):
                answer["answer"] = 1 if answer["answer"] == "1" else answer["answer"]

    for file in (QUESTIONS, ANNOTATIONS):
        damage(own_vqa2_root / file, as_texts)
    source = builder(own_vqa2_root)
    source.config.splits["train"][0].images = "coco/train2014/{image_id}.jpg"
    after = source.samples("train")
    assert [s.sample_id for s in after] == [f"q{s.sample_id}" for s in before]
    assert [(s.text, s.answers, s.answer) for s in after] == [(s.text, s.answers, s.answer) for s in before]
    assert after[0].images[0].name == f"{before[0].image_ids[0]}.jpg"


def test_use_and_karpathy_splits_are_checked(own_vqa2_root):
    source = builder(own_vqa2_root)
    source.config.use = {"val": "minval"}
    with pytest.raises(UserError, match=r"^dataset_config.vqa2.use.val: 'minval': no such split; did you mean minival\?"):
        source.samples("val")
    source.config.use = {}
    with pytest.raises(UserError, match=r"^dataset_config.vqa2.karpathy='.*dataset_coco.json': no such file"):
        source.samples("minival")
    write_karpathy(own_vqa2_root, {900: "val"})
    with pytest.raises(UserError, match=r"questions.json: image 901 is not in .*dataset_coco.json"):
        source.samples("minival")
    write_karpathy(own_vqa2_root, KARPATHY)
    source.config.splits["minival"][0].karpathy_splits = ["valid"]
    with pytest.raises(UserError, match=r"minival\[0\].karpathy_splits: 'valid': .* no such split; did you mean val"):
        source.samples("minival")
    source.config.karpathy = None
    with pytest.raises(UserError, match=r"^dataset_config.vqa2.karpathy: is not set"):
        source.samples("minival")


def test_labels_come_back_from_the_cache(own_vqa2_root, tmp_path):
    write_karpathy(own_vqa2_root, KARPATHY)
    plain = builder(own_vqa2_root)
    for split in ("trainval", "minival", "train"):
        cached = [list(official("vqa2", own_vqa2_root, tmp_path / "cache").samples(split)) for _ in range(2)]
        assert cached[0] == cached[1] == list(plain.samples(split))
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_pattern_that_cannot_be_filled_in_is_refused(own_vqa2_root):
    source = builder(own_vqa2_root)
    for pattern in ("coco/val2014", "coco/{image}.jpg", "coco/{image_id", "c/{image_id:0999999999d}.jpg", "{image_id:.{x}}"):
        source.config.splits["val"][0].images = pattern
        with pytest.raises(UserError, match=r"splits.val\[0\].images: .*cannot be filled in .* it may hold \{image_id\}"):
            source.samples("val")
