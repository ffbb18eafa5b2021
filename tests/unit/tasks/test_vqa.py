"""The VQA task's losses, counts and baseline, worked out by hand."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Batch, Sample


def task(**options):
    answers = registry.build("processor", "answers", {"min_occurrences": 1}, "a")
    answers.fit(["red", "red", "blue"])
    return registry.build("task", "vqa", options, "task_config.vqa", processors={"answers": answers})


def sample(number, text="what color?", answer="red", kind="color"):
    return Sample(
        sample_id=number,
        image_ids=(number,),
        images=("x",),
        text=text,
        answers=() if answer is None else (answer,),
        answer=answer,
        groups={"question_type": kind},
    )


def bce(logit: float, target: float) -> float:
    return -(target * math.log(1 / (1 + math.exp(-logit))) + (1 - target) * math.log(1 - 1 / (1 + math.exp(-logit))))


LOGITS = [[2.0, -1.0], [0.5, 0.25], [-3.0, 1.0]]
TARGETS = [[1.0, 0.0], [0.3, 0.9], [0.0, 1.0]]


def batch(weights=(1.0, 1.0, 0.0), index=(0, 0, 1)):
    return Batch(
        sample_ids=[0, 1, 2],
        input_ids=torch.zeros(3, 1),
        text_mask=torch.ones(3, 1),
        images=[],
        targets={"answers": torch.tensor(TARGETS)},
        weights=torch.tensor(weights),
        image_index=torch.tensor(index)[:, None],
        image_seeds=torch.zeros(max(index) + 1),
    )


def test_loss_is_summed_over_answers_and_questions_that_count():
    output = SimpleNamespace(logits={"answers": torch.tensor(LOGITS)})
    expected = sum(bce(LOGITS[row][column], TARGETS[row][column]) for row in (0, 1) for column in (0, 1))
    assert float(task().loss(output, batch())["answers"]) == pytest.approx(expected, rel=1e-5)
    assert float(task().counts(batch())["answers"]) == 2


def test_image_answers_loss_asks_which_answers_an_images_questions_have():
    logits = [[0.2, -0.4], [1.5, 0.1]]
    output = SimpleNamespace(logits={"answers": torch.tensor(LOGITS), "image_answers": torch.tensor(logits)})
    aided = task(image_answers_weight=0.5)
    # image 0 has questions 0 and 1: the best score of each answer; image 1 has only the skipped question 2
    expected = 0.5 * (bce(0.2, 1.0) + bce(-0.4, 0.9))
    assert float(aided.loss(output, batch())["image_answers"]) == pytest.approx(expected, rel=1e-5)
    assert float(aided.counts(batch())["image_answers"]) == 1
    assert aided.heads() == {"answers": 2, "image_answers": 2} and task().heads() == {"answers": 2}


def test_targets_are_soft_scores_and_zeros_without_answers():
    without = sample(2)
    without.answers = ()
    data = SimpleNamespace(samples=[sample(1, answer="blue"), without], targets={})
    task().prepare(data, [0, 0])
    assert data.targets["answers"].tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_predictions_metrics_and_prior():
    vqa = task()
    vqa.fit(Mixture("train", {"asked": [sample(0), sample(1), sample(2, answer="blue"), sample(3, "other?", "blue", "thing")]}))
    samples = [sample(10), sample(11, answer="blue"), sample(12, "unseen?", "blue", "thing")]
    output = SimpleNamespace(logits={"answers": torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])})
    results = vqa.predict(output, SimpleNamespace(samples=samples))
    assert [result.prediction for result in results] == ["red", "red", "blue"]
    metrics = vqa.metrics(results)
    assert metrics["accuracy"] == pytest.approx(2 / 3) and metrics["question_prior"] == pytest.approx(2 / 3)
    assert metrics["accuracy[question_type=color]"] == 0.5 and metrics["accuracy[question_type=thing]"] == 1.0
    rows = [{"question_id": 10, "answer": "red"}, {"question_id": 11, "answer": "red"}, {"question_id": 12, "answer": "blue"}]
    suffix, text = vqa.predictions(results)
    assert suffix == ".json" and json.loads(text) == rows


def test_the_right_class_is_right_where_all_annotators_agree():
    answers = registry.build("processor", "answers", {"min_occurrences": 1}, "a")
    answers.fit(["t-shirt", "yes", "yes"])
    vqa = registry.build("task", "vqa", {}, "task_config.vqa", processors={"answers": answers})
    asked = sample(1, "what is it?")
    asked.answers = ("t-shirt",) * 10
    output = SimpleNamespace(logits={"answers": torch.tensor([[0.0, 1.0]])})  # yes, t shirt
    result = vqa.predict(output, SimpleNamespace(samples=[asked]))[0]
    assert answers.answers == ["yes", "t shirt"] and result.prediction == "t-shirt"
    assert result.scores == {"accuracy": 1.0, "ceiling": 1.0}
    batch = SimpleNamespace(samples=[asked], targets={})
    vqa.prepare(batch, [0])
    assert batch.targets["answers"].tolist() == [[0.0, 1.0]]


def test_metric_is_chosen_by_name():
    @registry.register_metric("half_for_all")
    def half_for_all(prediction, answers):
        """Half a point."""
        return 0.5

    output = SimpleNamespace(logits={"answers": torch.tensor([[1.0, 0.0]])})
    result = task(metric="half_for_all").predict(output, SimpleNamespace(samples=[sample(1)]))[0]
    assert result.scores == {"accuracy": 0.5}
    with pytest.raises(UserError, match="no metric is registered as 'vqa_acuracy'; did you mean vqa_accuracy"):
        task(metric="vqa_acuracy")


def test_both_priors_are_among_the_scores():
    vqa = task()
    vqa.fit(
        Mixture(
            "train",
            {"asked": [sample(0, "what color is it?"), sample(1, "what color are these", "blue"), sample(2, "why?", "red")]},
        )
    )
    output = SimpleNamespace(logits={"answers": torch.tensor([[1.0, 0.0]])})
    result = vqa.predict(output, SimpleNamespace(samples=[sample(9, "what color are they", "blue")]))[0]
    assert result.scores == {"accuracy": 0, "ceiling": 1, "question_prior": 0, "prefix_prior": 1}
