"""Answer vocabularies from files, spellings and the ceiling, against the official rule worked out class by class."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.vocabularies import fit_answers
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.metrics.vqa import vqa_accuracy
from pixelbert_plugin.types import Sample


def build(**params):
    return registry.build("processor", "answers", params, "processors.answers.params")


@pytest.mark.parametrize(
    ("name", "content", "answers"),
    [
        ("a.txt", "yes\nno\n\n2\n", ["yes", "no", "", "2"]),  # a blank line among answers is the empty answer
        ("a.txt", "\ufeffyes\r\nRed / YES\r\n\r\n \r\n", ["yes", "red yes"]),  # BOM, CRLF, blank lines at the end
        ("a.txt", "[unk]\n{x}\n", ["unk", "x"]),
        ("a.json", '["Red / YES", "", "two"]', ["red yes", "", "2"]),  # as trainval_label2ans.json
        ("list", ' [\n "yes",\n "no"]', ["yes", "no"]),  # whatever the name
        ("a.json", '{"no": 1, "yes": 0}', ["yes", "no"]),  # as trainval_ans2label.json
        (
            "a.json",
            '{"1": "no", "0": "yes", "10": "b", "2": "c", "3": "d", "4": "e", "5": "f", "6": "g", "7": "h", '
            '"8": "i", "9": "j"}',
            ["yes", "no", "c", "d", "e", "f", "g", "h", "i", "j", "b"],
        ),  # as id2label
        ("a.txt", "the\na\n?\n", ["the", "a", "?"]),  # of which the official rule leaves nothing
    ],
)
def test_files_are_read_by_content_and_normalised(tmp_path, name, content, answers):
    (tmp_path / name).write_bytes(content.encode())
    assert build(vocabulary=str(tmp_path / name)).answers == answers


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty; give one answer a line"),
        ("a.txt", b" \n\n", "is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.json", b"{}", "is empty"),
        ("a.txt", b"yes\nno\nyes\n", r"answer 'yes' is duplicated \(entries 1 and 3\); remove one"),
        ("a.txt", b"\nyes\n\nno", r"answer '' is duplicated \(entries 1 and 3\)"),
        ("a.txt", "caf\xe9\nyes".encode("latin-1"), r"is not UTF-8 text \(byte 0xe9 at 3\)"),
        ("a.pkl", b"\x80\x04\x95", r"is not UTF-8 text \(byte 0x80 at 0\)"),
        ("a.txt", b"y\0e\0s", "is binary"),
        ("a.json", b'["yes", 2]', "entry 2 is 2, not a text"),
        ("a.json", b'["yes", ["no"]]', r"entry 2 is \['no'\], not a text"),
        ("a.json", b'[{"ans": "yes", "dsets": []}]', "entry 1 is {'ans'"),
        ("a.json", b'["yes", null]', "entry 2 is None, not a text"),
        ("a.json", b'["yes", "\\ud83d"]', "entry 2 holds half a surrogate pair"),
        ("a.json", b'["yes", ', r"is broken JSON \(.*line 1"),
        ("a.txt", b'["yes", ', r"is broken JSON \(.*line 1"),
        ("a.json", b"[" * 100000, "is broken JSON"),
        ("a.json", b'{"yes": 0, "no": 2}', "its indices are not 0 to 1: 'no' has 2 where 1 is expected"),
        ("a.json", b'{"yes": 0, "no": 0}', "its indices are not 0 to 1"),
        ("a.json", b'{"yes": 0, "no": true}', "'no' has True where its index belongs"),
        ("a.json", b'{"yes": [0]}', r"'yes' has \[0\] where its index belongs"),
    ],
)
def test_files_that_are_no_vocabulary_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        build(vocabulary=str(tmp_path / name))
    assert str(error.value).startswith(f"processors.answers.params.vocabulary='{tmp_path / name}': ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UserError, match=r"vocabulary=.*: cannot be read"):
            build(vocabulary=str(path))


def test_spellings_of_one_class_are_merged_and_named(tmp_path, caplog):
    (tmp_path / "a.json").write_text(json.dumps(["t-shirt", "yes", "T shirt", "Yes."]))
    answers = build(vocabulary=str(tmp_path / "a.json"))
    assert answers.answers == ["t shirt", "yes"] and answers.spellings == ["t-shirt", "yes"]
    assert "2 of its 4 answers are the same as another" in caplog.text and "'T shirt' with 't-shirt'" in caplog.text


def test_the_prediction_is_the_most_frequent_spelling():
    """Ten annotators who agree on "t-shirt": the official rule compares what they wrote."""
    answers = build(min_occurrences=1)
    answers.fit(["t-shirt", "t-shirt", "yes"], ["t-shirt"] * 12 + ["T shirt"] * 12 + ["t shirt"] * 3 + ["yes"])
    assert answers.answers == ["t shirt", "yes"]
    assert answers.spellings == ["T shirt", "yes"]  # of equally frequent ones the first by the alphabet
    answers.learn_spellings(["t-shirt"] * 2 + [" t-shirt\n", "T shirt"])
    assert answers.spellings == ["t-shirt", "yes"]
    assert vqa_accuracy(answers.spellings[0], ("t-shirt",) * 10) == 1.0
    assert answers.ceiling(("t-shirt",) * 10) == 1.0 and answers.ceiling(("t shirt",) * 10) == 0.0
    again = build()
    again.load_state_dict(answers.state_dict())
    assert (again.answers, again.spellings) == (answers.answers, answers.spellings)


def test_a_checkpoint_of_an_earlier_version_predicts_the_classes_names():
    answers = build()
    answers.load_state_dict({"answers": ["t shirt", "yes"]})
    assert answers.spellings == ["t shirt", "yes"] and answers.scores(("T-shirt",)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("state", [{"answers": ["a", "b"], "spellings": ["a"]}, {"answers": ["a", 3]}])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(ValueError, match="as many texts"):
        build().load_state_dict(state)


def test_a_files_classes_are_spelled_as_in_train(tmp_path):
    """The list was published normalised; annotators write otherwise, and train tells how."""
    (tmp_path / "a.txt").write_text("t shirt\nyes\nnever\n")
    params = {"vocabulary": str(tmp_path / "a.txt"), "splits": ["train", "val"]}
    splits = []

    def samples(split):
        splits.append(split)
        sample = Sample(sample_id=1, image_ids=(1,), images=(Path("x"),), text="?", answer="t-shirt", answers=("t-shirt",) * 10)
        return SimpleNamespace(parts={"set": Samples.of([sample])})

    for is_training, expected in ((True, ["t-shirt", "yes", "never"]), (False, ["t shirt", "yes", "never"])):
        answers = build(**params)
        fit_answers(answers, samples, is_training)
        assert answers.spellings == expected and answers.answers == ["t shirt", "yes", "never"]
    assert splits == ["train"]  # nothing is counted, and an evaluation has its checkpoint's


def test_articles_alone_are_answers_of_their_own():
    answers = build(min_occurrences=2)
    answers.fit(["a", "A", "the", "the", "the", "", " ", "", "cat", "an"])
    assert answers.answers == ["the", "a"] and answers.spellings == ["the", "A"]
    assert answers.scores(("a",) * 10).tolist() == [0.0, 1.0]
    # where annotators differ, the official rule takes all of them for one
    torch.testing.assert_close(answers.scores(("a", "a", "the", *["b"] * 7)), torch.tensor([0.9, 0.9]))
    with pytest.raises(UserError, match="no question of train has an answer to count"):
        build().fit(["", " "] * 20)


def test_one_class_of_a_published_list_may_stand_for_all_articles(tmp_path):
    (tmp_path / "a.json").write_text('["", "net"]')
    answers = build(vocabulary=str(tmp_path / "a.json"))
    answers.learn_spellings(["a", "a", "the", "net"])
    assert answers.answers == ["", "net"] and answers.spellings == ["a", "net"]
    assert answers.scores(("the",) * 10).tolist() == [1.0, 0.0]


WORDS = [
    "t-shirt",
    "t shirt",
    "T-Shirt",
    "a",
    "the",
    "",
    "two",
    "2",
    "yes",
    "Yes",
    "yes.",
    "dont know",
    "red/white",
    "cat",
    "?",
]


def test_the_ceiling_is_the_best_class_by_the_official_rule():
    draw = random.Random(4)
    for number in range(40):
        answers = build(min_occurrences=1)
        answers.fit([*draw.choices(WORDS, k=6), "cat"], draw.choices(WORDS, k=20))
        for _ in range(25):
            given = tuple(draw.choices(draw.sample(WORDS, draw.choice([1, 2, 3, 6])), k=draw.choice([1, 2, 10])))
            best = max(vqa_accuracy(spelling, given) for spelling in answers.spellings)
            assert answers.ceiling(given) == pytest.approx(best), (number, given, answers.spellings)
