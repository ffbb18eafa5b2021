"""Retrieval's training: all captions are scored, and the true one and the hardest are learned from."""

import pytest
import torch
import torch.nn.functional as F

from pixelbert_plugin import registry
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.precision.native import Bf16, Fp32
from unit.models import test_pixelbert as pixelbert
from unit.models.test_pixelbert import on

CPU = torch.device("cpu")
TEXTS, HARDEST = 7, 2  # to an image
LOST = {"dropout": 0.2, "attention_dropout": 0.3}


def task(**options):
    return registry.build(
        "task", "retrieval", {"num_negatives": TEXTS - 1, "num_hardest": HARDEST, **options}, "t", processors={}
    )


def setting(device=CPU, **lost):
    """A model in training and a batch of two images with seven captions each."""
    net = pixelbert.model(heads={"itm": 2}, text={**pixelbert.SMALL, **lost}, pixel_dropout=0.1, freeze_image_encoder=True)
    images = list(torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(2)))
    index = [[0]] * TEXTS + [[1]] * TEXTS
    batch = pixelbert.batch(images, lengths=[4 + number % 5 for number in range(2 * TEXTS)], index=index)
    batch.sample_ids, batch.weights = [0, 1], torch.tensor([1.0, 0.5])
    return net.train().to(device), on(device, batch)


def gradients(net):
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


def test_rows_of_the_true_caption_and_the_hardest():
    scores = torch.tensor([[0.0, 3, 1, 2, -1, 5, 4], [9.0, 1, 2, 3, 4, 5, 6]])
    logits = {"itm": torch.stack([torch.zeros(14), scores.flatten()], 1)}
    _, batch = setting()
    assert task().chosen(logits, batch).tolist() == [0, 5, 6, 7, 12, 13]
    assert task(num_hardest=4).chosen is None  # as much work as all of them with gradient
    assert registry.build("task", "retrieval", {}, "t", processors={}).chosen is not None  # the paper's 5 of 20


@pytest.mark.parametrize("is_read", [False, True], ids=["all hidden states", "[CLS] alone"])
@pytest.mark.parametrize("lost", [{}, LOST], ids=["dropout 0.1", "more dropout"])
def test_gradient_is_that_of_one_pass_over_all_captions(lost, is_read):
    is_that_of_one_pass(CPU, lost, is_read)


def is_that_of_one_pass(device, lost, is_read):
    """With the same dropout: drawn here for all, once, and every caption sent through with gradient."""
    net, batch = setting(device, **lost)
    cls = torch.zeros(2 * TEXTS, 1, dtype=torch.int64, device=device) if is_read else None
    batch.read_positions = cls
    torch.manual_seed(5)
    found = Losses(net, task(), Fp32(device))(batch)["retrieval"]
    found.backward()
    own = gradients(net)
    net.zero_grad()

    torch.manual_seed(5)
    images = net.encode_images(batch)
    words = net.embed_texts(batch.input_ids)
    with net.text_encoder.draws.first(2 * TEXTS, device):
        index = batch.image_index[:, 0]
        hidden, _, _ = net.fuse(words, batch.text_mask, images.pixels[index], images.mask[index], False, cls)
    logits = net.cls_logits(hidden)["itm"]
    scores = (logits[:, 1] - logits[:, 0]).view(2, TEXTS)
    losses = []
    for row in scores:  # the negatives that are not among the hardest are constants
        hardest = row[1:].sort(descending=True).values[HARDEST - 1]
        negatives = torch.stack([score if score >= hardest else score.detach() for score in row[1:]])
        losses.append(F.cross_entropy(torch.cat([row[:1], negatives])[None], torch.tensor([0], device=device)))
    expected = losses[0] + 0.5 * losses[1]
    expected.backward()
    torch.testing.assert_close(found, expected)
    assert own.keys() == gradients(net).keys() and any("attention.self.query" in name for name in own)
    near = 1e-4 if device == CPU else 1e-3
    for name, gradient in gradients(net).items():
        torch.testing.assert_close(own[name], gradient, rtol=near, atol=near / 100, msg=name)


def test_other_dropout_would_give_another_gradient():
    net, batch = setting(**LOST)
    found = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        Losses(net, task(), Fp32(torch.device("cpu")))(batch)["retrieval"].backward()
        found.append(gradients(net))
        net.zero_grad()
    name = "text_encoder.bert.encoder.layer.0.output.dense.weight"
    assert not torch.allclose(found[0][name], found[1][name], rtol=1e-2)


@pytest.mark.parametrize("precision", [Fp32, Bf16])
def test_a_model_that_takes_no_choice_goes_through_once_and_learns_the_same(monkeypatch, precision):
    """In bfloat16 too: what autocast keeps of weights that were cast without gradient must not be used with it."""
    net, batch = setting(dropout=0.0, attention_dropout=0.0)
    calls, fuse, found = [], net.fuse, []
    monkeypatch.setattr(net, "fuse", lambda *arguments: calls.append(len(arguments[0])) or fuse(*arguments))
    for takes_choose in (True, False):
        monkeypatch.setattr(type(net), "takes_choose", takes_choose)
        batch.targets.clear()
        torch.manual_seed(7)  # of the pixels' dropout
        Losses(net, task(), precision(torch.device("cpu")))(batch)["retrieval"].backward()
        found.append(gradients(net))
        net.zero_grad()
    assert calls == [2 * TEXTS, 2 * (1 + HARDEST), 2 * TEXTS] and found[0].keys() == found[1].keys()
    for name, gradient in found[1].items():
        nearly = (
            {"rtol": 1e-4, "atol": 1e-6} if precision is Fp32 else {"rtol": 0.05, "atol": 0.02 * float(gradient.abs().max())}
        )
        torch.testing.assert_close(found[0][name], gradient, **nearly, msg=name)
