"""Answers to a question about an image, against sigmoids by hand."""

import math

import pytest


def test_probabilities_are_sigmoids_of_the_models_logits(models, pictures):
    model, question = models["vqa"], "what color is it"
    logits = model(pictures[0], question).logits["answers"][0].tolist()
    by_hand = {text: 1 / (1 + math.exp(-x)) for text, x in zip(model.processors["answers"].spellings, logits, strict=True)}
    found = model.answer(pictures[0], question, top_k=3)
    ranked = sorted(by_hand, key=by_hand.get, reverse=True)
    assert found.question == question and [answer.text for answer in found.answers] == ranked[:3]
    assert [answer.probability for answer in found.answers] == pytest.approx([by_hand[text] for text in ranked[:3]], rel=1e-6)
    assert found.best == found.answers[0] and len(by_hand) == 7
    everything = model.answer(pictures[0], question, top_k=100).answers
    assert len(everything) == 7 and sum(answer.probability for answer in everything) != pytest.approx(1, abs=0.05)


def test_a_batch_is_the_same_as_one_by_one_in_order(models, pictures):
    model = models["vqa"]
    questions = ["is the disc red or blue", "what color is it", "how many discs are there"]
    one_question = model.answer(pictures, questions[0], top_k=7, batch_size=3)
    one_image = model.answer(pictures[1], questions, top_k=7, batch_size=2)
    both = model.answer(tuple(pictures[:3]), questions, top_k=7)
    asked = [(each, questions[0]) for each in pictures] + [(pictures[1], each) for each in questions]
    asked += list(zip(pictures, questions, strict=False))
    assert len({round(answers.best.probability, 5) for answers in one_question + one_image}) >= 9  # else order is not seen
    for (image, question), answers in zip(asked, one_question + one_image + both, strict=True):
        alone = {answer.text: answer.probability for answer in model.answer(image, question, top_k=7).answers}
        assert answers.question == question
        assert {answer.text: answer.probability for answer in answers.answers} == pytest.approx(alone, abs=1e-6)


def test_of_equal_answers_the_first_of_the_vocabulary_comes_first(models, pictures):
    model = models["vqa"]
    head = model.model.heads["answers"]
    former = {name: value.clone() for name, value in head.state_dict().items()}
    try:
        for parameter in head.parameters():
            parameter.data.zero_()
        assert [answer.text for answer in model.answer(pictures[0], "what color is it", 7).answers] == model.processors[
            "answers"
        ].spellings
    finally:
        head.load_state_dict(former)
