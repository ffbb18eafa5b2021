"""Optimizers by name. The paper: SGD for the CNN, AdamW for the transformer.

Every optimizer has a `rule` ("sgd", "adamw", "lamb"): the state of one suits any other of the same rule.
"""

from typing import Any

import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.optim.options import AdamWConfig, SgdConfig

NamedParameters = list[tuple[str, nn.Parameter]]


@registry.register_optimizer("sgd")
class Sgd(torch.optim.SGD):
    """Stochastic gradient descent with momentum: the paper's for the CNN."""

    Config = SgdConfig
    rule = "sgd"

    def __init__(self, config: SgdConfig, named_parameters: NamedParameters):
        groups = decay_groups(named_parameters, config.weight_decay)
        super().__init__(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


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
