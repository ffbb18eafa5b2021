"""Tensors without data: what is alive and how many operations there are, against hand counts and torch's own engine."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixelbert_plugin.planning.dry_run import Autocasting, backward, move, running
from pixelbert_plugin.precision.native import Fp32, choose

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)

pytest.importorskip("torch", minversion="2.14")  # which a plan needs


def made(build, device):
    """Inside `running`: a module without data on the device."""
    model = build()
    move(model, device)
    return model


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_a_linear_layer_by_hand(device):
    """10 rows of 6 → 4: the weight's gradient and the input's cost as much as the forward pass each."""
    with running(device) as books:
        with books.building():
            layers = made(lambda: nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), device)
            values = torch.empty(10, 6, device=device)
        before = books.live
        assert before == 4 * (6 * 4 + 4 + 4 * 2 + 2 + 10 * 6)
        losses = [layers(values).sum()]
        assert books.operations == 2 * 10 * (6 * 4 + 4 * 2)
        assert books.live - before == 4 * 10 * 4 + 4  # what the first layer gave, and the loss
        backward(losses, books.add_gradient)
        # the input needs no gradient
        assert books.operations == 2 * 10 * (6 * 4 + 4 * 2) + 2 * 10 * (6 * 4 + 2 * 4 * 2)
        assert books.live == before
        assert books.gradients == 4 * (6 * 4 + 4 + 4 * 2 + 2)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_costs_twice_as_much_backward_also_in_groups(groups):
    with running(GPU) as books:
        with books.building():
            convolution = made(lambda: nn.Conv2d(8, 12, 3, padding=1, groups=groups, bias=False), GPU)
            values = torch.empty(2, 8, 5, 7, device=GPU).requires_grad_()
        losses = [convolution(values).sum()]
        forward = books.operations
        assert forward == 2 * 2 * 12 * 5 * 7 * (8 // groups) * 9
        backward(losses, books.add_gradient)
        assert books.operations == 3 * forward


class Net(nn.Module):
    """Weights that are shared, branches, a head that nothing depends on, and an autograd function of a plugin's."""

    def __init__(self):
        super().__init__()
        self.shared, self.norm, self.unused = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, values):
        first = self.shared(values)
        return (Doubled.apply(self.norm(first)) + self.shared(first).relu()).softmax(1)[:, 1:].mean() + first.square().sum()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return 2 * values

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_the_walk_gives_the_gradients_that_torchs_engine_gives():
    """On real tensors, to the last bit but for the order of a sum."""
    torch.manual_seed(1)
    net, values = Net(), torch.randn(6, 4)
    net(values).backward()
    wanted = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    names, found = {parameter: name for name, parameter in net.named_parameters()}, {}

    def learn(weight, gradient):
        found[names[weight]] = found.get(names[weight], 0) + gradient

    backward([net(values)], learn)
    assert found.keys() == wanted.keys() and not any("unused" in name for name in found)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)


def test_a_weight_that_is_used_twice_has_one_gradient():
    with running(GPU) as books:
        with books.building():
            linear, values = made(lambda: nn.Linear(4, 4), GPU), torch.empty(2, 4, device=GPU)
        backward([linear(linear(values)).sum()], books.add_gradient)
        assert books.gradients == 4 * (16 + 4)
        books.forget_gradients()
        assert books.gradients == 0


def test_attention_on_a_gpu_keeps_no_weights_and_on_a_cpu_with_dropout_it_does():
    """2 sequences, 3 heads of 8, 16 positions: the weights would be 2 · 3 · 16 · 16 numbers."""
    saved = {}
    for device in (CPU, GPU):
        with running(device) as books:
            with books.building():
                query = torch.empty(2, 3, 16, 8, device=device).requires_grad_()
                mask = torch.empty(2, 1, 1, 16, dtype=torch.bool, device=device)
            before = books.live
            found = F.scaled_dot_product_attention(query, query, query, attn_mask=mask, dropout_p=0.1)
            assert found.shape == query.shape
            saved[device.type] = books.live - before
    assert saved["cuda"] < 4 * 2 * 3 * 16 * 16 < saved["cpu"]


def test_autocast_is_that_of_the_gpu_which_is_not_there():
    """A GPU's layer norm gives float32 under autocast, a CPU's bfloat16."""
    types = {}
    for device in (CPU, GPU):
        casting = Autocasting(choose("bf16", {}, CPU), device)
        assert casting.dtype == torch.bfloat16
        with running(device) as books:
            with books.building():
                linear, norm = made(lambda: nn.Linear(4, 4), device), made(lambda: nn.LayerNorm(4), device)
                values = torch.empty(2, 4, device=device)
            with casting.autocast():
                product = linear(values)
                types[device.type] = product.dtype, norm(product).dtype
            assert linear(values).dtype == torch.float32
    assert types == {"cpu": (torch.bfloat16, torch.bfloat16), "cuda": (torch.bfloat16, torch.float32)}
    assert not torch.is_autocast_enabled("cuda")
    assert Autocasting(Fp32(CPU), GPU).dtype is None


def test_sizes_stay_real_and_can_be_looked_at():
    with running(GPU) as books:
        with books.building():
            values = torch.empty(3, device=GPU)
        sizes = torch.tensor([[4, 6], [4, 6]])
        assert not bool((sizes != torch.tensor((4, 6))).any()) and (sizes // 2).tolist() == [[2, 3], [2, 3]]
        assert sizes.to(GPU).device == values.device == GPU


def test_shared_weights_stay_shared_on_another_device():
    with running(GPU) as books, books.building():
        first, second = nn.Linear(3, 3), nn.Linear(3, 3)
        second.weight = first.weight
        move(model := nn.Sequential(first, second), GPU)
        assert model[0].weight is model[1].weight and model[0].weight.device == GPU
        assert len(list(model.parameters())) == 3


def test_recomputed_activations_are_not_kept():
    """torch's checkpointing works in a dry run, autocast and all: less is saved, and the forward pass, but for the last product
    that nothing needs, counts once more in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def run(recomputes):
        with running(GPU) as books:
            with books.building():
                layers = made(lambda: nn.Sequential(*(nn.Linear(8, 8) for _ in range(5))), GPU)
                values = torch.empty(16, 8, device=GPU)
            before = books.live
            with Autocasting(choose("bf16", {}, CPU), GPU).autocast():
                output = checkpoint(layers, values, use_reentrant=False) if recomputes else layers(values)
            losses = [output.sum()]
            del output
            saved, forward = books.live - before, books.operations
            backward(losses, books.add_gradient)
            assert books.live == before
            return saved, forward, books.operations

    saved, forward, operations = run(False)
    less, same, more = run(True)
    assert less < saved / 3 and same == forward and more == operations + forward * 4 / 5
