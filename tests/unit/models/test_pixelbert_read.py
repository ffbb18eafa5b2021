"""The last layer only where heads read: the same logits, losses and gradients as with all hidden states."""

from dataclasses import replace

import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.data.collate import read_positions
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.precision.native import Bf16, Fp32
from unit.models.test_pixelbert import SMALL, batch, model

CPU = torch.device("cpu")
STILL = {**SMALL, "dropout": 0.0, "attention_dropout": 0.0}
HEADS = {"vqa": {"answers": 7}, "nlvr2": {"pair": 2}, "retrieval": {"itm": 2}, "pretrain": {"mlm": 50, "itm": 2}}


class Task:
    """A registered task's loss without what it learns from data."""

    def __init__(self, name):
        self.built = object.__new__(registry.get("task", name, "task"))
        self.built.config = type(self.built).Config() if hasattr(type(self.built), "Config") else None
        if name == "retrieval":
            self.built = registry.build("task", name, {"num_negatives": 3, "num_hardest": 1}, "t", processors={})
        self.chosen, self.loss = self.built.chosen, self.built.loss


def given(name):
    """A batch of texts and images of different lengths and sizes; masked words in two texts, none in the others."""
    draw = torch.Generator().manual_seed(4)
    images = [torch.randn(3, 97, 131, generator=draw), torch.randn(3, 65, 160, generator=draw)]
    index = [[0, 1], [1, 0], [0, 0], [1, 1]] if name == "nlvr2" else [[0], [0], [1], [1]]
    if name == "retrieval":
        index = [[0]] * 4 + [[1]] * 4
    found = batch(images, [6, 9, 4, 7] * (2 if name == "retrieval" else 1), index)
    samples = 2 if name in ("retrieval", "pretrain") else 4
    found.sample_ids, found.weights = list(range(samples)), torch.linspace(0.5, 1, samples)
    if name == "vqa":
        found.targets["answers"] = torch.rand(4, 7, generator=draw)
    elif name == "nlvr2":
        found.targets["pair"] = torch.tensor([0, 1, 1, 0])
    elif name == "pretrain":
        places = [(0, 2), (0, 4), (2, 1), (2, 2), (2, 3)]
        found.targets["mlm_positions"] = torch.tensor([row * 9 + word for row, word in places])
        found.targets["mlm"] = torch.tensor([7, 8, 9, 10, 11])
        found.targets["mlm_samples"] = torch.tensor([0, 0, 1, 1, 1])
    return found


def both(found):
    return replace(found, targets=dict(found.targets)), replace(found, read_positions=read_positions(found))


def gradients(net):
    found = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    net.zero_grad()
    return found


@pytest.mark.parametrize("name", HEADS)
def test_logits_and_gradients_are_those_of_all_hidden_states(name):
    net = model(heads=HEADS[name], text=STILL).double()
    whole, read = (replace(each, images=each.images.double()) for each in both(given(name)))
    found = []
    for each in (whole, read):
        logits = net(each).logits
        draw = torch.Generator().manual_seed(1)
        sum((value * torch.randn(value.shape, generator=draw)).sum() for value in logits.values()).backward()
        found.append((logits, gradients(net)))
    (expected, steep), (logits, slopes) = found
    assert logits.keys() == HEADS[name].keys() and slopes.keys() == steep.keys()
    for head, value in expected.items():
        near = 1e-6 if head == "itm" else 1e-12  # the matching head gives float32
        torch.testing.assert_close(logits[head], value, rtol=near, atol=near, msg=head)
    largest = max(float(slope.abs().max()) for slope in steep.values())  # keys' biases have none but rounding
    for parameter, slope in steep.items():
        torch.testing.assert_close(slopes[parameter], slope, rtol=1e-10, atol=1e-13 * largest, msg=parameter)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("precision", [Fp32, Bf16])
def test_losses_too(name, precision):
    """Retrieval's two passes included; in bfloat16, where a CPU attends by the weights, within its three digits."""
    net, task, found = model(heads=HEADS[name], text=STILL, freeze_image_encoder=True).train(), Task(name), []
    for each in both(given(name)):
        losses = Losses(net, task, precision(CPU))(each)
        sum(losses.values()).backward()
        found.append((losses, gradients(net)))
    (expected, steep), (losses, slopes) = found
    near = 1e-6 if precision is Fp32 else 2e-2
    assert losses.keys() == expected.keys()
    for part, value in expected.items():
        torch.testing.assert_close(losses[part], value, rtol=near, atol=near)
    largest = max(float(slope.abs().max()) for slope in steep.values())
    for parameter, slope in steep.items():
        torch.testing.assert_close(slopes[parameter], slope, rtol=near, atol=near * largest, msg=parameter)


@pytest.mark.parametrize("name", HEADS)
def test_the_last_layer_computes_no_others(name):
    net, found = model(heads=HEADS[name], text=STILL), both(given(name))[1]
    shapes = []
    for layer in net.text_encoder.shard_units():
        layer.intermediate.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape[:2])))
    output = net(found)
    sequences = 8 if name in ("nlvr2", "retrieval") else 4
    words = 4 if name == "pretrain" else 1  # [CLS], and up to three masked words
    assert shapes == [(sequences, 9 + 4), (sequences, 9 + 4), (sequences, words)]
    assert output.text is None and output.pixels is None and output.pixel_mask.shape == (sequences, 4)


@torch.no_grad()
def test_attentions_and_hidden_states_are_there_for_who_asks():
    net, (whole, read) = model(heads=HEADS["pretrain"]), both(given("pretrain"))
    plain, asked = net(whole), net(read, return_attentions=True)
    assert plain.text.shape == (4, 9, 48) and plain.pixels.shape == (4, 4, 48)
    torch.testing.assert_close(asked.text, plain.text, atol=1e-5, rtol=0)
    assert [tuple(weights.shape) for weights in asked.attentions] == [(4, 4, 13, 13)] * 3


@torch.no_grad()
def test_pair_logits_are_what_fuse_and_cls_logits_give():
    net, found = model(heads={"itm": 2}, pooler=True), given("retrieval")
    images, words = net.encode_images(found), net.embed_texts(found.input_ids)
    index = found.image_index[:, 0]
    pairs = (words, found.text_mask, images.pixels[index], images.mask[index])
    expected = net.cls_logits(net.fuse(*pairs)[0])["itm"]
    assert expected.std() > 0.01
    torch.testing.assert_close(net.pair_logits(*pairs)["itm"], expected, atol=1e-6, rtol=0)


def test_positions_by_hand():
    found = given("pretrain")
    assert read_positions(found).tolist() == [[0, 2, 4, 0], [0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0]]
    assert read_positions(given("vqa")).tolist() == [[0]] * 4
    found.targets["mlm_positions"] = torch.tensor([], dtype=torch.int64)
    assert read_positions(found).tolist() == [[0]] * 4
    found.targets["mlm_positions"] = torch.tensor([9 + 8, 4, 2])  # in any order
    assert read_positions(found).tolist() == [[0, 2, 4], [0, 8, 0], [0, 0, 0], [0, 0, 0]]
