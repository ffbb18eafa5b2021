"""What is explained of each task, and what cannot be."""

import copy
import math
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from pixelbert_plugin import UserError, register_explanation, registry
from pixelbert_plugin.asking.explain import BEST, BEST_OF_WORDS, method_for, words_method_for
from pixelbert_plugin.types import ExplanationMap

TEXT = "is the disc red"


@pytest.fixture
def scores(monkeypatch):
    """What a method is given to explain, of the model's own output: the log-odds."""
    seen = []

    def explain(given):
        seen.append((given, given.score(given.model(given.batch)).tolist()))
        return [ExplanationMap(answer=torch.ones(1, 1)) for _ in given.batch.image_index[0]]

    monkeypatch.setattr(
        registry, "get", lambda *of, get=registry.get: Plain if of[:2] == ("explanation", "plain") else get(*of)
    )
    monkeypatch.setattr(
        registry, "build", lambda *of, build=registry.build: explain if of[:2] == ("explanation", "plain") else build(*of)
    )
    return seen


class Plain:
    needs_attentions = False


def log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_the_most_probable_answer_or_the_one_named(models, pictures, scores):
    model = models["vqa"]
    answers = model.answer(pictures[0], TEXT, top_k=99).answers
    for answer, expected in ((None, answers[0]), (answers[2].text, answers[2])):
        found = model.explain(pictures[0], TEXT, "plain", answer)
        assert (found.answer, found.probability) == (expected.text, pytest.approx(expected.probability))
        assert scores[-1][1] == pytest.approx([log_odds(expected.probability)], rel=1e-4)
    with pytest.raises(UserError, match=r"^answer='redd': is no answer of this model; did you mean red\?"):
        model.explain(pictures[0], TEXT, "plain", "redd")


@pytest.mark.parametrize(
    "task, count, labels, ask",
    [
        ("retrieval", 1, ("no match", "match"), lambda model, images: model.match(images[0], TEXT).probability),
        ("nlvr2", 2, ("False", "True"), lambda model, images: model.compare(*images, TEXT).probability),
    ],
)
def test_of_two_labels_each_can_be_explained(models, pictures, scores, task, count, labels, ask):
    model, images = models[task], pictures[:count]
    probability = ask(model, images)
    for label, expected in zip(labels, (1 - probability, probability), strict=True):
        found = model.explain(images, TEXT, "plain", label)
        assert (found.answer, found.probability) == (label, pytest.approx(expected, rel=1e-4))
        assert scores[-1][1] == pytest.approx([log_odds(expected)], rel=1e-3)
        assert len(found.images) == count
    assert model.explain(images, TEXT, "plain").answer == labels[probability > 0.5]
    with pytest.raises(UserError, match=r"^answer='yes': is no answer of this model"):
        model.explain(images, TEXT, "plain", "yes")


def test_of_masked_words_the_first(models, pictures, scores):
    model, text = models["pretrain"], "a [MASK] [MASK] disc"
    first = model.fill(pictures[0], text, top_k=3).masks[0]
    for answer, expected in ((None, first[0]), (first[2].word, first[2])):
        found = model.explain(pictures[0], text, "plain", answer)
        assert (found.answer, found.probability) == (expected.word, pytest.approx(expected.probability, rel=1e-4))
        assert scores[-1][1] == pytest.approx([log_odds(expected.probability)], rel=1e-3)
        assert scores[-1][0].read_at == 2
    assert model.explain(pictures[0], TEXT, "plain").answer in ("match", "no match")  # without a [MASK]
    assert scores[-1][0].read_at == 0


def test_maps_and_pictures_are_as_large_as_the_file(models, tmp_path):
    """Four times as large as the model takes it, which its processor reduces."""
    picture = Image.fromarray(np.zeros((260, 520, 3), np.uint8))
    picture.save(tmp_path / "large.png")
    for source in (tmp_path / "large.png", picture):
        found = models["vqa"].explain(source, TEXT, "attention")
        assert models["vqa"].decoded(source).shape[1] < 260
        assert found.map.shape == found.word_map(0).shape == (260, 520) and found.overlay().size == (520, 260)


def test_wrong_input_is_one_line(models, pictures, monkeypatch):
    model = models["vqa"]
    for given, told in (
        ((pictures[:2], TEXT), r"^explain: 2 image\(s\) for 1: answer\(image, question\)$"),
        ((pictures[0], " "), "^question=' ': is empty$"),
        ((pictures[0], TEXT, "rolout"), r"^method: no explanation is registered as 'rolout'; did you mean rollout\?"),
    ):
        with pytest.raises(UserError, match=told):
            model.explain(*given)
    with pytest.raises(UserError, match=r"^options\.steps: unknown key"):
        model.explain(pictures[0], TEXT, "rollout", options={"steps": 3})
    with pytest.raises(UserError, match=r"^explain: 1 image\(s\) for 2: compare\(left, right, statement\)$"):
        models["nlvr2"].explain(pictures[0], TEXT)
    bare = copy.copy(model)
    bare.task = copy.copy(model.task)
    monkeypatch.setattr(bare.task, "asked", dict, raising=False)
    with pytest.raises(UserError, match=r"^explain: the task 'vqa' of .* can be asked nothing that is explained"):
        bare.explain(pictures[0], TEXT)
    assert method_for(bare, None) is None


def test_a_model_that_does_not_give_its_attention_is_told(models, pictures, monkeypatch):
    model = models["vqa"]
    monkeypatch.setattr(type(model.model), "gives_attentions", False)
    with pytest.raises(
        UserError, match=r"^method='attention': the model 'pixelbert' does not give its attention .*: integrated_"
    ):
        model.explain(pictures[0], TEXT, "attention")
    with pytest.raises(UserError, match=r"^method='rollout': the model 'pixelbert' does not give its attention"):
        method_for(model, "rollout")


def test_a_method_of_ones_own(models, pictures):
    import catalogue

    before = dict(catalogue.REGISTRY)
    try:

        @register_explanation("corners")
        class Corners:
            """The first corner, whatever is asked."""

            def __call__(self, given):
                return [ExplanationMap(answer=torch.tensor([[1.0, 0.0], [0.0, 0.0]]))]

        found = models["vqa"].explain(pictures[0], TEXT, "corners")
        assert found.map.shape == (48, 64) and found.map.argmax() == 0 and found.words == ()
        for wrong in ([], [ExplanationMap(answer=torch.ones(3))], [ExplanationMap(answer=torch.full((1, 1), torch.nan))]):
            Corners.__call__ = lambda self, given, wrong=wrong: wrong
            with pytest.raises(
                UserError, match=r"^Corners \(.*test_explain.py:\d+\): __call__\(given\) must return a list of 1"
            ):
                models["vqa"].explain(pictures[0], TEXT, "corners")
        with pytest.raises(UserError, match=r"it lacks __call__\(given\)"):
            register_explanation("nothing")(type("Nothing", (), {}))
    finally:
        catalogue.REGISTRY.clear()
        catalogue.REGISTRY.update(before)


def test_without_a_method_words_are_the_best_ones_that_has_any(models, pictures):
    pytest.importorskip("captum", reason="captum is not installed: pip install -e '.[explain]'")
    model = models["vqa"]
    found, answer, words = (model.explain(pictures[0], TEXT, method) for method in (None, BEST, BEST_OF_WORDS))
    assert (found.method, found.words_method, found.words) == (BEST, BEST_OF_WORDS, words.words) and words.words
    np.testing.assert_array_equal(found.map, answer.map)
    np.testing.assert_array_equal(found.word_map(2), words.word_map(2))
    assert (answer.words, answer.words_method) == ((), "")
    assert not np.allclose(found.map, words.map)


def test_a_page_takes_the_best_method_that_is_there(models, monkeypatch):
    model = models["vqa"]
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert method_for(model, None) == words_method_for(model, BEST_OF_WORDS) == BEST_OF_WORDS
    with pytest.raises(UserError, match="needs the package captum"):
        method_for(model, "integrated_gradients")
    monkeypatch.setattr(type(model.model), "gives_attentions", False)
    assert method_for(model, None) is None


def test_the_best_method_of_the_table_is_the_default():
    text = (ROOT / "docs/explanations.md").read_text(encoding="utf-8")
    assert f"**Best: `{BEST}`**" in text and f"of those with maps of words `{BEST_OF_WORDS}`" in text
