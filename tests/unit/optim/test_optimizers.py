"""Every option of an optimizer reaches torch's, and what it steps by is worked out here."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.precision.apex import fused_optim


def build(name: str, **options):
    weight, bias = nn.Parameter(torch.tensor([[1.0, -2.0]])), nn.Parameter(torch.tensor([0.5]))
    named = [
        ("layer.weight", weight),
        ("layer.bias", bias),
        ("frozen.weight", nn.Parameter(torch.ones(2, 2), requires_grad=False)),
    ]
    return registry.build("optimizer", name, options, "optimizer.x.params", named_parameters=named), weight, bias


@pytest.mark.parametrize("name", ["adamw", "fused_adam"])
def test_options_reach_adamw(name):
    lr, decay, betas, eps = 0.1, 0.5, (0.6, 0.7), 0.25
    optimizer, weight, bias = build(name, lr=lr, weight_decay=decay, betas=list(betas), eps=eps)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1] and optimizer.rule == "adamw"
    expected = {"w": [1.0, -2.0], "b": [0.5]}
    moments = {key: [[0.0, 0.0] for _ in values] for key, values in expected.items()}
    for step, gradients in enumerate(({"w": [0.3, 0.1], "b": [-0.2]}, {"w": [-0.1, 0.4], "b": [0.6]}), start=1):
        weight.grad, bias.grad = torch.tensor([gradients["w"]]), torch.tensor(gradients["b"])
        optimizer.step()
        for key, values in expected.items():
            for at, gradient in enumerate(gradients[key]):
                values[at] *= 1 - lr * (decay if key == "w" else 0)  # decoupled; none on biases
                first, second = moments[key][at]
                first, second = betas[0] * first + (1 - betas[0]) * gradient, betas[1] * second + (1 - betas[1]) * gradient**2
                moments[key][at] = [first, second]
                corrected = (second / (1 - betas[1] ** step)) ** 0.5 + eps
                values[at] -= lr * first / (1 - betas[0] ** step) / corrected
        assert weight.flatten().tolist() == pytest.approx(expected["w"], rel=1e-5)
        assert bias.tolist() == pytest.approx(expected["b"], rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "fused_sgd"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_options_reach_sgd(name, nesterov):
    lr, decay, momentum = 0.1, 0.5, 0.6
    optimizer, weight, bias = build(name, lr=lr, weight_decay=decay, momentum=momentum, nesterov=nesterov)
    assert optimizer.rule == "sgd"
    expected, velocity = {"w": 1.0, "b": 0.5}, {"w": 0.0, "b": 0.0}
    for gradient in (0.3, -0.8, 0.5):
        weight.grad, bias.grad = torch.full((1, 2), gradient), torch.full((1,), gradient)
        optimizer.step()
        for key, value in expected.items():
            slope = gradient + (decay if key == "w" else 0) * value
            velocity[key] = momentum * velocity[key] + slope
            expected[key] = value - lr * (slope + momentum * velocity[key] if nesterov else velocity[key])
        assert weight[0, 0].item() == pytest.approx(expected["w"], rel=1e-5)
        assert bias[0].item() == pytest.approx(expected["b"], rel=1e-5)


def test_nothing_with_decay_or_nothing_without_makes_one_group():
    for shape in ((2, 2), (2,)):
        optimizer = registry.build("optimizer", "adamw", {}, "o", named_parameters=[("x", nn.Parameter(torch.ones(shape)))])
        assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2 if len(shape) > 1 else 0.0]


def test_apexs_optimizers_are_asked_for_what_torchs_would_do(monkeypatch):
    """Decoupled decay, and no clipping of their own: training.max_grad_norm is the norm of all gradients together."""
    asked = {}

    def stand_in(name):
        def made(groups, **options):
            asked[name] = options
            return SimpleNamespace(param_groups=groups, state={}, step=lambda: None, zero_grad=lambda: None)

        return made

    kernels = SimpleNamespace(**{name: stand_in(name) for name in ("FusedAdam", "FusedSGD", "FusedLAMB")})
    monkeypatch.setitem(sys.modules, "apex", SimpleNamespace(optimizers=kernels))
    monkeypatch.setitem(sys.modules, "apex.optimizers", kernels)
    monkeypatch.setattr(fused_optim, "_why_not", lambda groups: None)
    adam, sgd, lamb = (build(name, lr=0.5, weight_decay=0.25)[0] for name in ("fused_adam", "fused_sgd", "fused_lamb"))
    assert asked["FusedAdam"] == {"lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-8, "adam_w_mode": True}
    assert asked["FusedSGD"] == {"lr": 0.5, "momentum": 0.9, "nesterov": False}
    assert asked["FusedLAMB"] == {"lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-6, "max_grad_norm": math.inf}
    assert [made.rule for made in (adam, sgd, lamb)] == ["adamw", "sgd", "lamb"]
    assert all([group["weight_decay"] for group in made.param_groups] == [0.25, 0.0] for made in (adam, sgd, lamb))
