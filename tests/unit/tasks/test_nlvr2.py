"""NLVR2's figures against the rule of its script, its loss by hand, and its predictions file."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.metrics.nlvr2 import accuracy_and_consistency, has_sentences, sentence_group
from pixelbert_plugin.types import Sample


@pytest.fixture
def task():
    return registry.build("task", "nlvr2", None, "task_config.nlvr2", processors={})


def sample(identifier, answer="True", images=2):
    return Sample(sample_id=identifier, image_ids=tuple(range(images)), images=("x",) * images, text="t", answer=answer)


@given(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)), st.booleans(), min_size=1))
def test_equals_the_scripts_rule(judged):
    """A second implementation: blank the pair number in the identifier, and a sentence is lost by one wrong pair."""
    is_right = {f"dev-{first}-{pair}-{sentence}": right for (first, pair, sentence), right in judged.items()}
    consistent = {}
    for identifier, right in is_right.items():
        pieces = identifier.split("-")
        pieces[2] = ""
        key = "-".join(pieces)
        consistent[key] = consistent.get(key, True) and right
    found = accuracy_and_consistency(is_right)
    assert found["accuracy"] == pytest.approx(list(is_right.values()).count(True) / len(is_right))
    assert found["consistency"] == pytest.approx(list(consistent.values()).count(True) / len(consistent))


def test_by_hand():
    is_right = {"dev-1-0-0": True, "dev-1-1-0": False, "dev-1-0-1": True, "dev-2-3-0": True}
    assert accuracy_and_consistency(is_right) == {"accuracy": 0.75, "consistency": pytest.approx(2 / 3)}
    assert sentence_group("dev-850-0-1") == sentence_group("dev-850-2-1") != sentence_group("dev-850-0-0")
    with pytest.raises(UserError, match="'17': an NLVR2 identifier is split-set-pair-sentence"):
        sentence_group("17")


def test_loss_predictions_and_figures(task):
    samples = [sample("dev-1-0-0"), sample("dev-1-1-0", "False"), sample("dev-2-0-0", "True")]
    batch = SimpleNamespace(samples=samples, targets={}, weights=torch.tensor([1.0, 1.0, 0.0]))
    task.prepare(batch, [0, 0, 0])
    assert batch.targets["pair"].tolist() == [1, 0, 1]
    output = SimpleNamespace(logits={"pair": torch.tensor([[0.0, 1.0], [0.0, 2.0], [5.0, 0.0]])})
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))
    assert float(task.loss(output, batch)["pair"]) == pytest.approx(expected, rel=1e-5)
    assert float(task.counts(batch)["pair"]) == 2
    results = task.predict(output, batch)
    assert task.metrics(results) == {"accuracy": pytest.approx(1 / 3), "consistency": 0.0}
    assert task.predictions(results) == (".csv", "dev-1-0-0,True\ndev-1-1-0,True\ndev-2-0-0,False\n")


def test_unlabelled_splits_are_predicted_without_figures(task):
    batch = SimpleNamespace(samples=[sample("test2-1-0-0", None)], targets={}, weights=torch.ones(1))
    task.prepare(batch, [0])
    assert batch.targets["pair"].tolist() == [-100]  # what cross-entropy leaves out
    results = task.predict(SimpleNamespace(logits={"pair": torch.tensor([[0.0, 1.0]])}), batch)
    assert task.metrics(results) == {} and task.predictions(results)[1] == "test2-1-0-0,True\n"


def test_a_statement_about_one_image_is_refused(task):
    with pytest.raises(UserError, match=r"task=nlvr2: sample dev-1-0-0 has 1 image\(s\), not two"):
        task.prepare(SimpleNamespace(samples=[sample("dev-1-0-0", images=1)], targets={}), [0])


def test_another_label_is_named_with_its_sample(task):
    batch = SimpleNamespace(samples=[sample("dev-1-0-0", "False"), sample("dev-2-0-0", "true")], targets={})
    with pytest.raises(UserError, match=r"sample dev-2-0-0: its label is 'true', not 'False' or 'True'"):
        task.prepare(batch, [0, 0])


def test_other_identifiers_have_no_consistency():
    """Those of a table of one's own say nothing of sentences."""
    assert has_sentences(["dev-850-0-0", "test1-0-1-1"])
    assert not has_sentences(["dev-850-0-0", "a.jpg+b.jpg#1"]) and not has_sentences(["17"])
    assert not has_sentences(["my-long-file-name.jpg+other.jpg#1"])
