"""A file of predictions read back gives the metrics that the task itself computes, retrieval's matrix those of recall.py."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pixelbert_plugin.comparing.bootstrap import compare
from pixelbert_plugin.comparing.comparison import Example, _pair
from pixelbert_plugin.comparing.predictions import Scored, _matrix, _members, mean_scores
from pixelbert_plugin.metrics.nlvr2 import accuracy_and_consistency
from pixelbert_plugin.metrics.recall import retrieval_metrics
from pixelbert_plugin.metrics.vqa import vqa_accuracy
from pixelbert_plugin.tasks.nlvr2 import LABELS, Nlvr2Task
from pixelbert_plugin.tasks.options import VqaConfig
from pixelbert_plugin.tasks.pretrain import PretrainTask
from pixelbert_plugin.tasks.vqa import VqaTask
from pixelbert_plugin.types import Result, Sample


def sample(sample_id, images=(1,), text="what?", **more) -> Sample:
    return Sample(sample_id=sample_id, image_ids=images, images=tuple(Path(f"{image}") for image in images), text=text, **more)


def by_id(results: list[Result]) -> dict[str, Sample]:
    return {str(result.sample.sample_id): result.sample for result in results}


def values(terms) -> dict[str, float]:
    """Each metric as the ratio of its sums."""
    return {name: sum(a for a, _ in own.values()) / sum(b for _, b in own.values()) for name, own in terms.items()}


def test_vqa_is_scored_by_its_metric_and_by_kind():
    draw, results = random.Random(1), []
    for number in range(30):
        answers = tuple(draw.choices(["yes", "no", "red"], k=10))
        groups = {"answer_type": draw.choice(["yes/no", "other"])}
        results.append(
            Result(sample(number, answers=answers, answer=answers[0], groups=groups), draw.choice(["yes", "no"]), None)
        )
    _, text = VqaTask.predictions(None, results)
    found = VqaTask.read_predictions(VqaConfig(), text, by_id(results))
    scores = [vqa_accuracy(result.prediction, result.sample.answers) for result in results]
    assert [result.scores["accuracy"] for result in found] == scores
    kind = [score for score, result in zip(scores, results, strict=True) if result.sample.groups["answer_type"] == "other"]
    told = values(mean_scores(found))
    assert told["accuracy"] == pytest.approx(sum(scores) / 30) and next(iter(told)) == "accuracy"
    assert told["accuracy[answer_type=other]"] == pytest.approx(sum(kind) / len(kind))


def test_nlvr2_has_accuracy_and_consistency_by_sentence():
    draw, results = random.Random(2), []
    for place in range(48):  # three sets of four pairs and four sentences
        own, pair, sentence = place // 16, place // 4 % 4, place % 4
        images = (f"{own}-{pair}-l", f"{own}-{pair}-r")
        made = sample(f"dev-{own}-{pair}-{sentence}", images, answer=draw.choice(LABELS))
        results.append(Result(made, made.answer if draw.random() < 0.9 else LABELS[0], made.answer))
    _, text = Nlvr2Task.predictions(None, results)
    found = Nlvr2Task.read_predictions(None, text, by_id(results))
    is_right = {result.sample.sample_id: result.prediction == result.truth for result in results}
    assert values(Nlvr2Task.terms(found)) == pytest.approx(accuracy_and_consistency(is_right))
    members = [_members(result.sample) for result in results]
    assert ("sentence", "dev-0-1") in members[1] and len(members[1]) == 3


def test_pairs_of_a_table_have_no_sentences():
    """Their ids say none, whatever hyphens their files' names have."""
    made = [sample(f"my-long-file-{n}.jpg+b.jpg#1", ("a", "b"), answer="True") for n in range(2)]
    results = [Result(each, "True", "True", {"accuracy": 1.0}) for each in made]
    assert Nlvr2Task.terms(results) == {"accuracy": {0: (1.0, 1.0), 1: (1.0, 1.0)}}
    assert _members(made[0]) == [("image", "a"), ("image", "b")]


def test_pre_training_counts_words_and_both_pairs():
    draw, results = random.Random(3), []
    for number in range(20):
        words = draw.randint(0, 4)
        scores = {"mlm_right": draw.randint(0, words), "mlm_words": words, "itm_right": draw.randint(0, 2)}
        results.append(Result(sample(number), "a guess", "the truth", scores))
    _, text = PretrainTask.predictions(None, results)
    found = PretrainTask.read_predictions(None, text, by_id(results))
    assert [result.scores for result in found] == [result.scores for result in results]
    told = values(PretrainTask.terms(found))
    assert told["mlm_accuracy"] == pytest.approx(
        sum(r.scores["mlm_right"] for r in results) / sum(r.scores["mlm_words"] for r in results)
    )
    assert told["itm_accuracy"] == pytest.approx(sum(r.scores["itm_right"] for r in results) / 40)
    with pytest.raises(ValueError, match="evaluate that run again"):
        PretrainTask.read_predictions(None, "sample_id\ttruth\tprediction\n1\ta\tb\n", by_id(results))


def test_retrievals_matrix_gives_its_metrics_and_what_was_found(tmp_path):
    generator = np.random.default_rng(4)
    samples = {str(text): sample(text, (text // 5,), f"caption {text}") for text in range(60)}
    scores = generator.normal(size=(12, 60)).astype(np.float32)
    scores[np.arange(60) // 5, np.arange(60)] += 1.5
    metadata = {"image_ids": json.dumps(list(range(12))), "text_ids": json.dumps(list(range(60)))}
    save_file({"scores": scores}, tmp_path / "x.safetensors", metadata)
    found = _matrix(tmp_path / "x.safetensors", samples)
    keys = list(found.results)
    told = compare({name: [terms, terms] for name, terms in found.measures(keys).items()}, np.arange(len(keys)), 10, 1, 0.9)
    expected = retrieval_metrics(scores, np.arange(60) // 5)
    medians = {name for name in expected if "median" in name}
    assert {name: each.values[0].value for name, each in told.items()} == pytest.approx(
        {name: value for name, value in expected.items() if name not in medians}
    )
    best = int(scores[3].argmax())
    assert found.results["image 3"].prediction == f"caption {best}"
    assert found.results["text 7"].prediction == f"image {scores[:, 7].argmax()}" and found.results["text 7"].truth == "image 1"
    assert found.members["text 7"] == [1] and found.members["image 1"] == [1]


def test_examples_are_those_that_differ_most_spread_over_the_split():
    gains = [0.0, 1.0, 0.3, 1.0, -1.0, 1.0, 1.0]
    results = [{str(n): Result(sample(n, text=f"q{n}"), f"{run}{n}", "t") for n in range(7)} for run in "ab"]
    mains = [
        {str(n): 1.0 * (gain < 0) for n, gain in enumerate(gains)},
        {str(n): max(gain, 0.0) for n, gain in enumerate(gains)},
    ]
    first, other = (Scored(own, {}, main, lambda keys: {}) for own, main in zip(results, mains, strict=True))
    pair = _pair(1, first, other, list(results[0]), 2)
    assert (pair.first_is_better, pair.other_is_better, pair.equal, pair.same_prediction) == (1, 5, 1, 0)
    assert [example.sample for example in pair.examples] == ["4", "1", "5"]
    assert pair.examples[0] == Example("4", "q4", "t", ["a4", "b4"], [1.0, 0.0])
