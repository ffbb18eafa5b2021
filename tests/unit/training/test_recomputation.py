"""Gradient checkpointing: less is kept, and nothing else differs."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.precision.native import Bf16, Fp32
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.training.recomputation import recompute_blocks
from unit.models.test_pixelbert import SMALL, model, on
from unit.models.test_pixelbert_read import HEADS, Task, both, given, gradients

CPU = torch.device("cpu")
LOST = {**SMALL, "dropout": 0.2, "attention_dropout": 0.3}


def kept_bytes(work):
    """Of all tensors that autograd keeps during `work`, each piece of memory once."""
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = work()
    return loss, sum(storage.nbytes() for storage in held.values())


def trained(net, task, precision, batches):
    """Losses, gradients, buffers, the generators' state after a forward and backward pass for each batch, and what was kept."""
    torch.manual_seed(3)
    losses, kept = [], 0
    losses_of = Losses(net, task, precision)
    for each in batches:
        loss, kept = kept_bytes(lambda each=each: sum(losses_of(each).values()))
        loss.backward()
        losses.append(loss.item())
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    is_cuda = precision.device.type == "cuda"
    state = torch.cat([torch.get_rng_state(), *([torch.cuda.get_rng_state(precision.device)] if is_cuda else [])])
    return losses, gradients(net), buffers, state, kept


@pytest.mark.parametrize("precision", [Fp32, Bf16])
@pytest.mark.parametrize(("name", "is_frozen"), [("vqa", False), ("pretrain", False), ("retrieval", True)])
def test_everything_is_equal_to_the_last_bit(name, is_frozen, precision):
    everything_is_equal(CPU, name, is_frozen, precision)


def everything_is_equal(device, name, is_frozen, precision):
    """Dropout is on; images are padded, so that both kinds of training batch norms are there; retrieval's second pass draws for
    some rows what the first drew for all. Two batches: gradients accumulate, running statistics move twice."""
    usual = model(heads=HEADS[name], text=LOST, pixel_dropout=0.1, freeze_image_encoder=is_frozen).train().to(device)
    counted = usual.image_encoder.resnet.layer1[0].bn1.num_batches_tracked.item()
    changed, task = deepcopy(usual), Task(name)
    recompute_blocks(changed, "pixelbert")
    batches = [[on(device, each) for each in (both(given(name))[1], both(given(name))[0])] for _ in range(2)]
    found = [trained(net, task, precision(device), own) for net, own in zip((usual, changed), batches, strict=True)]
    (losses, slopes, buffers, state, kept), again = found
    assert again[0] == losses and len(set(losses)) == 2
    assert again[1].keys() == slopes.keys() and all(torch.equal(again[1][key], slope) for key, slope in slopes.items())
    assert all(torch.equal(again[2][key], buffer) for key, buffer in buffers.items())
    assert torch.equal(again[3], state)
    assert again[4] < (0.5 if is_frozen else 0.4) * kept
    assert buffers["image_encoder.resnet.layer1.0.bn1.num_batches_tracked"] == counted + (0 if is_frozen else 2)


def test_names_stay_and_an_evaluation_computes_once():
    net = model()
    names, calls = list(net.state_dict()), []
    net.text_encoder.shard_units()[0].intermediate.register_forward_hook(lambda *_: calls.append(1))
    recompute_blocks(net, "pixelbert")
    assert list(net.state_dict()) == names
    with torch.no_grad():
        net(given("vqa"))
    assert len(calls) == 1
    net(given("vqa")).logits["answers"].sum().backward()
    assert len(calls) == 3


def test_a_copy_has_blocks_of_its_own():
    net = nn.Sequential(nn.Linear(2, 2))
    net.shard_units = lambda: list(net)
    recompute_blocks(net, "mine")
    copy = deepcopy(net)
    nn.init.zeros_(copy[0].weight)
    nn.init.zeros_(copy[0].bias)
    assert copy(torch.ones(1, 2)).tolist() == [[0.0, 0.0]] and net(torch.ones(1, 2)).abs().sum() > 0


def test_a_model_without_blocks_is_refused():
    net = nn.Linear(2, 2)
    net.shard_units = lambda: []
    with pytest.raises(ConfigError, match=r"training\.gradient_checkpointing: the model 'mine' has no shard_units\(\)"):
        recompute_blocks(net, "mine")


def test_float16_weights_too():
    """As Apex's levels O2 and O3 have them; of the transformer alone, since a CPU takes minutes for float16 convolutions."""
    usual = registry.build("encoder", "bert", LOST, "e", vocab_size=50).half().train()
    changed, found = deepcopy(usual), []
    recompute_blocks(changed, "bert")
    for encoder in (usual, changed):
        torch.manual_seed(3)
        hidden, _ = encoder(encoder.embed(torch.arange(12).view(2, 6)), torch.ones(2, 6, dtype=torch.bool))
        (hidden * torch.arange(48.0).half()).sum().backward()
        found.append(gradients(encoder))
    assert found[0].keys() == found[1].keys() and {slope.dtype for slope in found[1].values()} == {torch.float16}
    assert all(torch.equal(found[1][name], slope) and slope.isfinite().all() for name, slope in found[0].items())
