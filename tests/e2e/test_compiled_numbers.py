"""training.compile=blocks by torch's own compiler: losses, gradients and dropout of a model's forward and backward passes."""

from copy import deepcopy

import pytest
import torch
from unit.models.test_pixelbert import SMALL, model
from unit.models.test_pixelbert_read import HEADS, STILL, Task, both, given, gradients

from pixelbert_plugin import registry
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.precision.native import Bf16, Fp32
from pixelbert_plugin.training.compilation import compile_blocks
from pixelbert_plugin.training.recomputation import recompute_blocks

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
LOST = {**SMALL, "dropout": 0.2, "attention_dropout": 0.3}


@pytest.fixture(autouse=True)
def new():
    torch._dynamo.reset()


def updates(net, task, precision, batches):
    """Losses and gradients of a forward and backward pass for each batch, and the generator's state after them."""
    torch.manual_seed(3)
    losses, slopes = [], []
    losses_of = Losses(net, task, precision(CPU))
    for each in batches:
        loss = sum(losses_of(each).values())
        loss.backward()
        losses.append(loss.item())
        slopes.append(gradients(net))
    return losses, slopes, torch.get_rng_state()


def several(name):
    """Batches of other numbers of texts, lengths and images; one of a single image, without padding."""
    return [both(given(name))[1], both(given(name))[0]]


@pytest.mark.parametrize(("name", "is_frozen"), [("vqa", False), ("retrieval", True)])
def test_losses_and_gradients_are_those_without(name, is_frozen):
    """By torch's own compiler. Images are padded; retrieval sends its captions through the transformer twice."""
    usual = model(heads=HEADS[name], text=STILL, freeze_image_encoder=is_frozen).train()
    changed, task = deepcopy(usual), Task(name)
    compiled = compile_blocks(changed, "pixelbert", CPU)
    expected = updates(usual, task, Fp32, several(name))
    with compiled.going_on():
        found = updates(changed, task, Fp32, several(name))
    assert found[0] == pytest.approx(expected[0], rel=1e-5)  # float32's rounding over the model's depth
    for slopes, steep in zip(found[1], expected[1], strict=True):
        assert slopes.keys() == steep.keys()
        for parameter, slope in steep.items():
            torch.testing.assert_close(slopes[parameter], slope, rtol=1e-4, atol=1e-4 * largest(steep), msg=parameter)
    assert not any(kind.is_given_up for kind in compiled.kinds.values()) and compiled.count < 20
    buffers = dict(usual.named_buffers())
    for buffer, value in changed.named_buffers():
        torch.testing.assert_close(value, buffers[buffer], rtol=1e-4, atol=1e-4)


def test_in_bf16_they_are_as_near_to_float32s_as_those_without():
    """Of the gradient on this model's first convolution bfloat16 leaves one digit, compiled or not, each another one."""
    exact = model(heads=HEADS["pretrain"], text=STILL).train()
    usual, changed, task = deepcopy(exact), deepcopy(exact), Task("pretrain")
    compiled = compile_blocks(changed, "pixelbert", CPU)
    expected, rounded = (
        updates(net, task, precision, several("pretrain")[:1]) for net, precision in ((exact, Fp32), (usual, Bf16))
    )
    with compiled.going_on():
        found = updates(changed, task, Bf16, several("pretrain")[:1])
    assert found[0] == pytest.approx(expected[0], rel=5e-3) and found[0] != expected[0]
    for slopes, near, steep in zip(found[1], rounded[1], expected[1], strict=True):
        assert slopes.keys() == near.keys() == steep.keys()
        for parameter, slope in steep.items():
            allowed = 2 * (near[parameter] - slope).norm() + 1e-3 * largest(steep)  # key biases have no gradient but rounding
            assert (slopes[parameter] - slope).norm() <= allowed, parameter
    for (buffer, value), one, other in zip(changed.named_buffers(), usual.buffers(), exact.buffers(), strict=True):
        near, right = one.double(), other.double()
        assert (value - right).norm() <= 2 * (near - right).norm() + 5e-3 * right.norm(), buffer
    assert not any(kind.is_given_up for kind in compiled.kinds.values()) and compiled.count < 20


def largest(slopes) -> float:
    return max(float(slope.abs().max()) for slope in slopes.values())


def test_dropout_is_reproducible_and_recomputed_alike():
    """Twice the same, and with gradient checkpointing over it too, to the last bit; in both passes of retrieval."""
    name = "retrieval"
    usual = model(heads=HEADS[name], text=LOST, pixel_dropout=0.1, freeze_image_encoder=True).train()
    task, found = Task(name), []
    for is_again in (False, False, True):
        net = deepcopy(usual)
        compiled = compile_blocks(net, "pixelbert", CPU)
        if is_again:
            recompute_blocks(net, "pixelbert")
        with compiled.going_on():
            found.append(updates(net, task, Fp32, several(name)))
    for losses, slopes, state in found[1:]:
        assert losses == found[0][0] and torch.equal(state, found[0][2])
        for one, other in zip(slopes, found[0][1], strict=True):
            assert one.keys() == other.keys() and all(torch.equal(one[key], slope) for key, slope in other.items())
    assert found[0][0] != updates(deepcopy(usual), task, Fp32, several(name))[0]  # dropout was on, with other numbers


def test_both_passes_of_retrieval_lose_the_same():
    """Of the rows that go through the transformer again, the second pass gives what the first gave."""
    encoder = registry.build("encoder", "bert", LOST, "e", vocab_size=50).train()
    compiled = compile_blocks(encoder, "bert", CPU)
    hidden, mask = torch.randn(6, 5, 48), torch.ones(6, 5, dtype=torch.bool)
    rows, read = torch.tensor([1, 2, 5]), torch.zeros(6, 1, dtype=torch.int64)
    with compiled.going_on(), encoder.draws.first(6, CPU):
        with torch.no_grad():
            first = encoder.read(hidden, mask, read)
        with encoder.draws.again(rows):
            again = encoder.read(hidden[rows].requires_grad_(), mask[rows], read[rows])
    torch.testing.assert_close(again, first[rows], rtol=1e-5, atol=1e-5)
    with torch.no_grad(), compiled.going_on():
        assert (encoder.read(hidden, mask, read) - first).abs().max() > 0.1  # other draws give another
    assert compiled.count == 6  # a layer and the last one: of all without gradient, of some with it, and of all as usual
