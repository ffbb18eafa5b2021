"""Visual Genome's questions beside VQA 2.0's: vocabulary and baselines are VQA's, and unknown answers are left out."""

import json
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_vqa2, share
from hypothesis import given
from hypothesis import strategies as st

from pixelbert_plugin import registry
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.run_data import RunData
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.survey import survey
from pixelbert_plugin.data.vocabularies import fit_answers, vocabularies
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.evaluation.baseline import Baseline
from pixelbert_plugin.registry.schema import Component
from unit.data.builders.test_visual_genome_qa import write
from unit.data.test_samples import SAMPLES, made, official

# of VQA's tiny train: red, green, blue, yes, no and 1. Images 1, 3 and 6 are not left out
PAIRS = {
    1: [("What color is the disc?", "Red."), ("What is it?", "A disc."), ("How many discs are there?", "One.")],
    2: [("What color is the disc?", "Green.")],  # of COCO's val
    3: [("What color is it?", "The BLUE."), ("What color is it?", "It is blue."), ("Is it red?", "No")],
    6: [("Where is it?", "On the ground.")],
}
KEPT = [("Red.", "red"), ("One.", "1"), ("The BLUE.", "blue"), ("No", "no")]  # as written, and its class


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A tiny VQA 2.0 and Visual Genome; read only."""
    found = make_vqa2(tmp_path_factory.mktemp("both"))
    write(found, PAIRS)
    return share(found)


def both(root: Path, **changes) -> dict:
    added = official("visual_genome_qa", root, **changes)
    return {"vqa2": official("vqa2", root), "visual_genome_qa": added}


def answers(**params):
    return registry.build("processor", "answers", {"min_occurrences": 1, **params}, "processors.answers.params")


def fitted(data: RunData, **params):
    found = answers(**params)
    fit_answers(found, data.answering, is_training=True)
    return found


def test_the_vocabulary_and_its_spellings_are_vqas(root):
    """Counted by hand in the annotations: an answer of Visual Genome's, written otherwise, changes neither."""
    data = RunData.of(both(root), ["train"])
    given = json.loads((root / "vqa2/v2_mscoco_train2014_annotations.json").read_text())["annotations"]
    main = Counter(item["multiple_choice_answer"] for item in given)
    expected = sorted(main, key=lambda answer: (-main[answer], answer))
    found = fitted(data)
    assert found.answers == found.spellings == expected and set(expected) == {"red", "green", "blue", "yes", "no", "1"}
    alone = fitted(RunData.of({"vqa2": official("vqa2", root)}, ["train"]))
    assert alone.state_dict() == found.state_dict()
    counted_too = fitted(RunData.of(both(root, only_known_answers=False), ["train"]))
    assert set(counted_too.answers) - set(expected) == {"disc", "it is blue", "on ground"}


def test_the_spellings_of_a_given_vocabulary_are_vqas(root, tmp_path):
    file = tmp_path / "answers.txt"
    file.write_text("no\nred\ndisc\n")
    found = fitted(RunData.of(both(root), ["train"]), vocabulary=str(file))
    assert found.spellings == ["no", "red", "disc"]
    counted_too = fitted(RunData.of(both(root, only_known_answers=False), ["train"]), vocabulary=str(file))
    assert counted_too.spellings == ["no", "red", "A disc."]


def test_questions_without_a_known_answer_are_left_out_counted_and_told_in_one_line(root, caplog):
    data = RunData.of(both(root), ["train"])
    found = fitted(data)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        known = data.with_known_answers(found, None).splits["train"]
    assert caplog.messages == [
        "train/visual_genome_qa: 4 of 7 questions have an answer of the vocabulary; the other 3 are left out"
    ]
    samples = known.parts["visual_genome_qa"]
    assert [(sample.sample_id, sample.answer) for sample in samples] == [
        (10, "Red."),
        (12, "One."),
        (30, "The BLUE."),
        (32, "No"),
    ]
    assert list(known.parts["vqa2"]) == list(data.splits["train"].parts["vqa2"]) and len(known) == 36 + 4
    for sample, (written, name) in zip(samples, KEPT, strict=True):
        assert sample.answers == (written,)
        wanted = torch.zeros(6)
        wanted[found.answers.index(name)] = 1.0  # a single annotator is sure
        assert torch.equal(found.scores(sample.answers), wanted)
    assert [sample.images[0].name for sample in samples] == ["1.jpg", "1.jpg", "3.jpg", "3.jpg"]
    assert samples.num_images == 2 and samples.images_M.tolist() == [0, 0, 1, 1]


def test_what_is_left_is_cached_by_what_is_known(root, tmp_path):
    data, cache = RunData.of(both(root), ["train"]), tmp_path / "cache"
    few, all_known = answers(), answers()
    few.load_state_dict({"answers": ["red"], "spellings": ["red"]})
    all_known.load_state_dict({"answers": ["red", "1"], "spellings": ["red", "1"]})

    def kept(processor):
        known = data.with_known_answers(processor, cache).splits["train"]
        return [sample.sample_id for sample in known.parts["visual_genome_qa"]]

    assert kept(few) == [10] and kept(all_known) == [10, 12] and kept(few) == [10]
    assert len(list(cache.iterdir())) == 2


def test_val_and_test_are_not_touched_and_have_vqa_alone(root):
    data = RunData.of(both(root), ["train", "val"])
    known = data.with_known_answers(fitted(data), None)
    assert known.splits["val"] is data.splits["val"] and list(known.splits["val"].parts) == ["vqa2"]


def test_without_such_a_data_set_everything_is_as_it_was(root):
    data = RunData.of({"vqa2": official("vqa2", root)}, ["train"])
    assert data.answering("train") is data.splits["train"]
    assert data.with_known_answers(fitted(data), None) is data
    assert data.with_known_answers(None, None) is data


def test_a_task_without_answers_has_every_question(root):
    data = RunData.of(both(root), ["train"])
    assert data.with_known_answers(None, None) is data and len(data.splits["train"].parts["visual_genome_qa"]) == 7


def test_none_known_and_none_to_count_are_one_line_each(root):
    data = RunData.of(both(root), ["train"])
    none = answers()
    none.load_state_dict({"answers": ["cat", "dog"], "spellings": ["cat", "dog"]})
    with pytest.raises(UserError) as error:
        data.with_known_answers(none, None)
    assert str(error.value) == (
        "dataset_config.visual_genome_qa.only_known_answers: true, and none of the 7 questions of train has an answer of the "
        "vocabulary (2 answers); set it to false, or leave the data set out of datasets"
    )
    alone = RunData.of({"visual_genome_qa": official("visual_genome_qa", root)}, ["train"])
    with pytest.raises(UserError, match=r"^datasets: all are of only_known_answers, so that there is none to count answers"):
        fitted(alone)
    own = RunData.of({"visual_genome_qa": official("visual_genome_qa", root, only_known_answers=False)}, ["train"])
    assert len(fitted(own)) == 7


def test_the_baselines_are_vqas_own(root, caplog):
    """Where the answers are not counted, those to the same question change no prior."""
    taught = []
    task = type("Taught", (), {"fit": staticmethod(lambda samples: taught.append([sample.text for sample in samples]))})
    data = RunData.of(both(root), ["train"])
    Baseline(task, data.answering).learn()
    Baseline(task, RunData.of(both(root), ["val"]).answering).learn()  # an evaluation reads the training split for it
    assert taught == [[sample.text for sample in data.splits["train"].parts["vqa2"]]] * 2
    alone = RunData.of({"visual_genome_qa": official("visual_genome_qa", root)}, ["train"])
    Baseline(task, alone.answering).learn()
    assert len(taught) == 2 and "the question-only prior is left out: all data sets are of only_known_answers" in caplog.text


def test_an_evaluation_does_not_need_the_added_files(root):
    data = RunData.of(both(root, questions="nowhere.json"), ["val"])
    assert list(data.answering("train").parts) == ["vqa2"] and len(data.answering("train")) == 36


def test_a_survey_counts_what_is_known_and_warns_of_no_coverage(root):
    builders = both(root)
    data = RunData.of(builders, ["train"])
    found = {remark.what: remark for remark in survey(data.splits["train"].parts["visual_genome_qa"], None, fitted(data), True)}
    assert list(found) == ["known answers"] and not found["known answers"].is_warning
    assert found["known answers"].detail == "4 of 7 questions have one; training leaves out the others"


def test_check_counts_the_vocabulary_as_a_run_does(root):
    class Processors:
        answers = Component("answers", answers().config)

    found, reasons = vocabularies(Processors, ["answers"], both(root), True)
    assert set(found["answers"].answers) == {"red", "green", "blue", "yes", "no", "1"} and reasons == {}


def test_a_table_that_was_read_serves_either_way(tmp_path):
    """The option is no part of what a table's cache depends on."""
    options = [{"table": "a.csv", "only_known_answers": only_known} for only_known in (False, True)]
    one, other = (registry.build("builder", "table", given, "t", data_dir=tmp_path, cache_dir=None) for given in options)
    assert one._options("train") == other._options("train")


def loader_at(root, weight: float, rank: int = 0, world_size: int = 1) -> Loader:
    data = RunData.of(both(root), ["train"])
    mixture = data.with_known_answers(fitted(data), None).splits["train"]
    reader = SimpleNamespace(mixture=mixture, seed=3)
    return Loader(reader, torch.device("cpu"), weights={"visual_genome_qa": weight}, rank=rank, world_size=world_size)


@pytest.mark.parametrize(("weight", "number"), [(0.5, 2), (1.0, 4), (0.25, 1), (2.0, 8)])
def test_an_epoch_has_of_them_what_their_weight_says(root, weight, number):
    """Of four known questions; all of VQA's 36 are in each epoch, and four epochs show each of the four as often."""
    loader = loader_at(root, weight)
    assert len(loader) == 36 + number
    seen: Counter[int] = Counter()
    for epoch in range(4):
        ids = loader.order(3, epoch, 8, None) % 40
        assert sorted(ids[ids < 36].tolist()) == list(range(36)) and len(ids) == 36 + number
        seen.update(ids[ids >= 36].tolist())
    assert dict(seen) == dict.fromkeys(range(36, 40), number)


def test_the_order_depends_on_seed_and_epoch_alone(root):
    one, other = loader_at(root, 0.5), loader_at(root, 0.5, rank=1, world_size=2)
    later = one.order(3, 5, 8, 2)
    assert np.array_equal(later, other.order(3, 5, 8, 2)) and np.array_equal(later, one.order(3, 5, 8, 2))
    assert not np.array_equal(later, one.order(3, 6, 8, 2)) and not np.array_equal(later, one.order(4, 5, 8, 2))


@given(rows=SAMPLES, known=st.sets(st.text(max_size=2)))
def test_samples_with_a_known_answer_are_found_and_kept(rows, known):
    plain = made(rows, Path("data"))
    samples = Samples.of(plain)
    asked = []

    def is_known(answer):
        asked.append(answer)
        return answer in known

    wanted = [any(answer in known for answer in sample.answers) for sample in plain]
    is_answered = samples.is_answered_M(is_known)
    assert is_answered.tolist() == wanted and len(asked) == len(set(asked))
    kept = Samples(samples.kept(is_answered), samples.root)
    assert list(kept) == [sample for sample, is_wanted in zip(plain, wanted, strict=True) if is_wanted]
