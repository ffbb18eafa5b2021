"""Visual Genome's question-answer pairs: what is read of either release, and that no image that VQA tests on is in it."""

import json
import logging
from pathlib import Path

import pytest
from conftest import damage

from pixelbert_plugin import registry
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from unit.data.builders.test_visual_genome import ids, write_images
from unit.data.test_samples import official

# (image, folder, coco_id, flickr_id)
IMAGES = [
    (1, "VG_100K_2", None, None),
    (2, "VG_100K", 42, 111),  # COCO's val
    (3, "VG_100K", 9, 222),  # COCO's train
    (4, "VG_100K", None, 333),  # Flickr30K's test
    (5, "VG_100K", 74, 333),  # COCO's test, and Flickr30K's
    (6, "VG_100K_2", None, "444"),  # Flickr30K's train
    (7, "VG_100K", 73, None),  # COCO's restval
]
PAIRS = [("What color is it?", "Blue."), ("How many are there?", "Two.")]


def write(root: Path, pairs: dict[int, list[tuple[str, str]]] | None = None) -> None:
    """The four files. `pairs`: questions and answers by image, with ids 10·image and on; without, PAIRS of every image."""
    write_images(root, IMAGES)
    entries = [
        {
            "id": image,
            "qas": [
                {
                    "a_objects": [],
                    "question": question,
                    "image_id": image,
                    "qa_id": 10 * image + number,
                    "answer": answer,
                    "q_objects": [{"object_id": 1, "x": 0, "y": 0, "w": 1, "h": 1, "names": ["disc"], "synsets": []}],
                }
                for number, (question, answer) in enumerate(of_image)
            ],
        }
        for image, of_image in (pairs or {image: PAIRS for image, *_ in IMAGES}).items()
    ]
    (root / "visual_genome/question_answers.json").write_text(json.dumps(entries))


def test_samples_and_counts(tmp_path, caplog):
    write(tmp_path)
    source = official("visual_genome_qa", tmp_path)
    with caplog.at_level(logging.INFO):
        samples = source.samples("train")
    first, second, *_ = samples
    assert (first.sample_id, first.image_ids, first.text) == (10, (1,), "What color is it?")
    assert (first.answers, first.answer, first.groups) == (("Blue.",), "Blue.", {})
    assert first.images == (tmp_path / "visual_genome/VG_100K_2/1.jpg",)
    assert (second.sample_id, second.answers) == (11, ("Two.",))
    assert [sample.sample_id for sample in samples] == [10, 11, 30, 31, 60, 61]
    assert caplog.messages == [
        "visual_genome_qa: left out of 7 images: 3 in COCO's restval, val and test, 1 in Flickr30K's; with them 8 questions; "
        "and 0 questions without a word in the question or the answer"
    ]
    assert source.count("train", samples) == {
        "samples": 6,
        "images": 3,
        "listed_images": 7,
        "coco_images": 3,
        "flickr30k_images": 1,
        "left_out_questions": 8,
        "empty_questions": 0,
    }


@pytest.mark.parametrize(
    ("splits", "kept"),
    [
        (["restval", "val", "test"], [1, 3, 4, 6]),
        (["val", "test"], [1, 3, 4, 6, 7]),  # beside trainval and minival
        (["restval"], [1, 2, 3, 4, 5, 6]),
        (["val"], [1, 3, 4, 5, 6, 7]),
        (["test"], [1, 2, 3, 4, 6, 7]),
        (["train"], [1, 2, 4, 5, 6, 7]),
    ],
)
def test_the_images_of_each_of_cocos_splits_can_be_left_out(tmp_path, splits, kept):
    write(tmp_path)
    source = official("visual_genome_qa", tmp_path, tmp_path / "cache", exclude_coco_splits=splits, exclude_flickr30k=None)
    assert ids(source.samples("train")) == kept
    default = official("visual_genome_qa", tmp_path, tmp_path / "cache", exclude_flickr30k=None)
    assert ids(default.samples("train")) == [1, 3, 4, 6]  # not what the other options left in the cache


def test_a_yaml_of_ones_own_is_as_safe_as_the_official_defaults(tmp_path):
    """Where it names the files alone: nothing of val2014, and no answers of these."""
    write(tmp_path)
    names = {"questions": "visual_genome/question_answers.json", "image_data": "visual_genome/image_data.json"}
    options = {**names, "images": "visual_genome", "exclude_coco": "coco/dataset_coco.json"}
    own = registry.build("builder", "visual_genome_qa", options, "own", data_dir=tmp_path, cache_dir=None)
    assert ids(own.samples("train")) == [1, 3, 4, 6] and own.config.only_known_answers


def test_flickr30ks_images_are_left_out_by_their_own_option(tmp_path):
    write(tmp_path)
    assert ids(official("visual_genome_qa", tmp_path, exclude_coco=None).samples("train")) == [1, 2, 3, 6, 7]
    neither = official("visual_genome_qa", tmp_path, exclude_coco=None, exclude_flickr30k=None)
    assert ids(neither.samples("train")) == [1, 2, 3, 4, 5, 6, 7] and len(neither.files("train")) == 2


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["vall", "test"], r"exclude_coco_splits: 'vall': .*dataset_coco.json has no such split; did you mean val\?"),
        ([], r"exclude_coco_splits: \[\] is invalid: names no split; exclude_coco: null keeps all of COCO's images"),
        ("val", r"exclude_coco_splits: 'val' "),
    ],
)
def test_splits_that_are_none_are_refused(tmp_path, splits, message):
    write(tmp_path)
    with pytest.raises(UserError, match=rf"^dataset_config.visual_genome_qa.{message}"):
        official("visual_genome_qa", tmp_path, exclude_coco_splits=splits).samples("train")


def test_a_karpathy_file_that_counts_restval_among_train_is_refused(tmp_path):
    """Else VQA's val would be learned from, and nobody would know."""
    write(tmp_path)

    def rename(content):
        for image in content["images"]:
            image["split"] = {"restval": "train"}.get(image["split"], image["split"])

    damage(tmp_path / "coco/dataset_coco.json", rename)
    message = r"exclude_coco_splits: 'restval': .*dataset_coco.json has no image in it; download the file again"
    with pytest.raises(UserError, match=message):
        official("visual_genome_qa", tmp_path).samples("train")
    assert ids(official("visual_genome_qa", tmp_path, exclude_coco_splits=["val", "test"]).samples("train")) == [1, 3, 6, 7]


def test_the_releases_differ_in_the_names_of_ids(tmp_path):
    write(tmp_path)
    before = list(official("visual_genome_qa", tmp_path).samples("train"))
    damage(tmp_path / "visual_genome/image_data.json", lambda c: [row.update(id=row.pop("image_id")) for row in c])
    damage(tmp_path / "visual_genome/question_answers.json", lambda c: [row.update(image_id=row.pop("id")) for row in c])
    damage(
        tmp_path / "visual_genome/question_answers.json",
        lambda c: [pair.update(id=pair.pop("qa_id")) for row in c for pair in row["qas"]],
    )
    assert list(official("visual_genome_qa", tmp_path).samples("train")) == before and len(before) == 6


def test_ids_may_be_texts(tmp_path):
    write(tmp_path)
    for name, keys in (("image_data", ("image_id", "coco_id")), ("question_answers", ("id",))):
        damage(
            tmp_path / f"visual_genome/{name}.json",
            lambda c, keys=keys: [row.update({key: row[key] and str(row[key]) for key in keys}) for row in c],
        )
    damage(
        tmp_path / "visual_genome/question_answers.json",
        lambda c: [pair.update(qa_id=f"q{pair['qa_id']}") for row in c for pair in row["qas"]],
    )
    samples = official("visual_genome_qa", tmp_path).samples("train")
    assert [sample.sample_id for sample in samples] == ["q10", "q11", "q30", "q31", "q60", "q61"]
    assert ids(samples) == ["1", "3", "6"]


def test_pairs_that_lack_a_word_are_dropped_and_counted(tmp_path, caplog):
    write(tmp_path, {1: [("What?", "A."), ("Who?", " "), ("", "B."), ("Where?", "")], 2: [("What?", "C.")], 3: []})
    source = official("visual_genome_qa", tmp_path)
    with caplog.at_level(logging.INFO):
        samples = source.samples("train")
    assert [(sample.sample_id, sample.answer) for sample in samples] == [(10, "A.")]
    assert "and 3 questions without a word in the question or the answer" in caplog.text
    counts = source.count("train", samples)
    assert counts["empty_questions"] == 3 and counts["left_out_questions"] == 1 and counts["images"] == 2


def test_the_val_split_is_visual_genomes_own(tmp_path):
    """As the regions' is: of five images, those at 5·1/4 and 5·3/4."""
    write(tmp_path)
    source = official(
        "visual_genome_qa", tmp_path, num_val_images=2, exclude_coco_splits=["val", "test"], exclude_flickr30k=None
    )
    assert ids(source.samples("val")) == [3, 6] and ids(source.samples("train")) == [1, 4, 7]
    none = official("visual_genome_qa", tmp_path)
    assert not none.has_split("val") and not none.has_split("test")
    with pytest.raises(UserError, match=r"^dataset_config.visual_genome_qa.num_val_images: 0: Visual Genome has no test split"):
        none.samples("test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[1].update(id=99), r"entry 1 is about image 99, which is not in visual_genome/image_data"),
        (lambda c: c[1].update(id="2"), r"entry 1 is about image 2, which is not in visual_genome/image_data"),
        (
            lambda c: c[0]["qas"][1].pop("answer"),
            r"question_answers.json: entry 0 has no 'answer'; is this the official file\?",
        ),
        (lambda c: c[0]["qas"][1].pop("question"), r"entry 0 has no 'question'"),
        (lambda c: c[0]["qas"][1].update(answer=2), r"entry 0: 'answer' is 2, of another type"),
        (lambda c: c[0]["qas"][1].update(qa_id="x"), r"question_answers.json: sample ids: id 'x' after"),
        (lambda c: c[0]["qas"][1].pop("qa_id"), r"entry 0 has no 'id'"),
        (lambda c: c[0].update(regions=c[0].pop("qas")), r"entry 0 has no 'qas'; is this the official file\?"),
        (lambda c: c.insert(0, None), r"entry 0 has no 'image_id'"),
        (lambda c: c[0].update(qas={}), r"entry 0: 'qas' is {}, of another type"),
    ],
)
def test_damaged_files_are_named(tmp_path, change, message):
    write(tmp_path)
    damage(tmp_path / "visual_genome/question_answers.json", change)
    with pytest.raises(UserError, match=message):
        official("visual_genome_qa", tmp_path).samples("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"questions": []}', r"question_answers.json: holds an object, not a list; is this the official file\?"),
        ("", r"question_answers.json: is empty; download it again"),
        ('[{"id": 1, "qas": [', r"questions: .*question_answers.json, line 1, column \d+: broken JSON"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, text, message):
    write(tmp_path)
    (tmp_path / "visual_genome/question_answers.json").write_text(text)
    with pytest.raises(UserError, match=message):
        official("visual_genome_qa", tmp_path).samples("train")


def test_missing_files_say_where_to_get_them(tmp_path):
    write(tmp_path)
    (tmp_path / "visual_genome/question_answers.json").unlink()
    message = r"visual_genome_qa.questions='.*': no such file; datasets/visual_genome_qa/README.md says where to get it"
    with pytest.raises(UserError, match=message):
        official("visual_genome_qa", tmp_path).samples("train")


def test_repeated_ids_are_refused(tmp_path):
    write(tmp_path)
    damage(tmp_path / "visual_genome/question_answers.json", lambda c: c[0]["qas"][1].update(qa_id=30))
    with pytest.raises(UserError, match=r"the train split of visual_genome_qa has several samples of id 30 \(files: .*answers"):
        Mixture.build({"visual_genome_qa": official("visual_genome_qa", tmp_path)}, "train")
