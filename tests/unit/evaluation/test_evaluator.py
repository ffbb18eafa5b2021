"""Evaluation leaves the model as it was, draws nothing, and sees all pixels; results stand in the split's order."""

import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.evaluation.evaluator import evaluate
from pixelbert_plugin.evaluation.retrieval import score_all_pairs
from pixelbert_plugin.precision.native import Fp32
from unit.data.test_loader import make_loader
from unit.models.test_pixelbert import SMALL, model

FP32 = Fp32(torch.device("cpu"))


@pytest.fixture(scope="module")
def parts(vqa2_root):
    """The validation split, and a model with much dropout and few sampled pixels."""
    loader = make_loader(vqa2_root, split="val", horizontal_flip=0.5)
    answers = registry.build("processor", "answers", {"min_occurrences": 1}, "a")
    answers.fit(sample.answer for sample in loader.mixture)
    task = registry.build("task", "vqa", {}, "t", processors={"answers": answers})
    loader.reader.prepare = task.prepare
    heads = {"answers": len(answers), "itm": 2}
    text = {**SMALL, "dropout": 0.5, "attention_dropout": 0.5}
    net = model(heads, False, text, loader.reader.text.vocab_size, pixel_dropout=0.5, num_sampled_pixels=1)
    return loader, task, net


def test_an_evaluation_is_without_dropout_sampling_and_flips_and_gives_the_mode_back(parts):
    loader, task, net = parts
    retrieval = registry.build("task", "retrieval", {}, "t", processors={})
    seen, statistics = [], []
    norm = net.image_encoder.resnet.bn1
    hook = net.register_forward_hook(lambda _module, _inputs, output: seen.append((output.pixel_mask.shape[1], output.grid)))
    before = norm.running_mean.clone()
    for is_training in (True, False):
        net.train(is_training)
        evaluation = evaluate(net, task, loader, 8, FP32)
        assert net.training == net.image_encoder.training == is_training
        matrix = score_all_pairs(net, retrieval, loader, 8, FP32)
        assert net.training == net.image_encoder.training == is_training
        statistics.append((evaluation.metrics, [result.prediction for result in evaluation.results], matrix.scores_IT.tolist()))
    hook.remove()
    assert statistics[0] == statistics[1]
    assert torch.equal(norm.running_mean, before)
    assert all(pixels == grid[0] * grid[1] > 1 for pixels, grid in seen)
    assert [result.sample.sample_id for result in evaluation.results] == [sample.sample_id for sample in loader.mixture]
    assert evaluation.metrics["accuracy"] == pytest.approx(
        sum(result.scores["accuracy"] for result in evaluation.results) / len(loader.mixture)
    )


def test_any_batch_size_evaluates_alike(parts):
    loader, task, net = parts
    net.eval()
    one, other = (evaluate(net, task, loader, size, FP32) for size in (4, 15))
    assert [result.prediction for result in one.results] == [result.prediction for result in other.results]
    assert one.metrics == other.metrics
