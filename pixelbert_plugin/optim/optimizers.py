"""Optimizers by name. The paper: SGD for the CNN, AdamW for the transformer.

Every optimizer has a `rule` ("sgd", "adamw", "lamb"): the state of one suits any other of the same rule.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.registry.schema import require

NamedParameters = list[tuple[str, nn.Parameter]]


@dataclass(kw_only=True)
class SgdConfig:
    lr: float = 1e-2  # learning rate (paper)
    momentum: float = 0.9  # the paper names none; torchvision's ImageNet recipe
    weight_decay: float = 5e-4  # (paper) on kernels and matrices; biases and norms have none, which the paper does not say
    nesterov: bool = False  # Nesterov's momentum

    def check(self) -> None:
        require(self, "lr", "weight_decay", low=0, high=1e6)
        require(self, "momentum", low=0, high=1)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum above 0")


@registry.register_optimizer("sgd")
class Sgd(torch.optim.SGD):
    """Stochastic gradient descent with momentum: the paper's for the CNN."""

    Config = SgdConfig
    rule = "sgd"

    def __init__(self, config: SgdConfig, named_parameters: NamedParameters):
        groups = decay_groups(named_parameters, config.weight_decay)
        super().__init__(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


@dataclass(kw_only=True)
class AdamWConfig:
    lr: float = 1e-4  # learning rate (paper)
    weight_decay: float = 1e-2  # (paper) decoupled, on matrices; biases, norms and s_v have none: our choice
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # torch's; the paper names none
    eps: float = 1e-8  # torch's; the paper names none

    def check(self) -> None:
        require(self, "lr", "weight_decay", low=0, high=1e6)
        require(self, "eps", above=0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas: needs two values in 0…1, below 1")


@registry.register_optimizer("adamw")
class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay: the paper's for the transformer."""

    Config = AdamWConfig
    rule = "adamw"

    def __init__(self, config: AdamWConfig, named_parameters: NamedParameters):
        groups = decay_groups(named_parameters, config.weight_decay)
        first, second = config.betas
        super().__init__(groups, lr=config.lr, betas=(first, second), eps=config.eps, fused=True)


def decay_groups(named_parameters: NamedParameters, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and kernels with decay, vectors (biases, norms, s_v) without, as BERT's own training."""
    parameters = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
