"""Optimizers and schedulers by name. The paper: SGD for the CNN, AdamW for the transformer, both ÷10 at two epochs.

Every optimizer has a `rule` ("sgd", "adamw", "lamb"): the state of one suits any other of the same rule.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pixelbert_plugin import registry
from pixelbert_plugin.schema import require

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
        super().__init__(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, fused=True)


def decay_groups(named_parameters: NamedParameters, weight_decay: float) -> list[dict]:
    """Two parameter groups: matrices and kernels with decay, vectors (biases, norms, s_v) without, as BERT's own training."""
    parameters = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def parameter_state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor | float]:
    """The optimizer's state of a parameter by torch's names, `step` too where Apex counts it per group; {} before a step."""
    state = {name: value for name, value in optimizer.state.get(parameter, {}).items() if value is not None}
    group = _group(optimizer, parameter)
    if state and getattr(optimizer, "counts_steps_by_group", False) and "step" in group:
        state["step"] = float(group["step"])
    return state


def set_parameter_state(optimizer: Optimizer, parameter: nn.Parameter, state: dict[str, Tensor | float]) -> None:
    """Put a `parameter_state`, of any optimizer of the same rule, where this one looks for it, in its types and devices."""
    group, own = _group(optimizer, parameter), {}
    for name, value in state.items():
        if name != "step":
            dtype = torch.float32 if getattr(optimizer, "has_float32_state", False) else parameter.dtype
            own[name] = torch.empty_like(parameter, dtype=dtype, requires_grad=False)  # with the parameter's strides
            own[name].copy_(value)
        elif getattr(optimizer, "counts_steps_by_group", False):
            group["step"] = max(int(value), group.get("step", 0))
        else:
            is_on_device = group.get("fused") or group.get("capturable")
            own["step"] = torch.tensor(float(value), device=parameter.device if is_on_device else "cpu")
    if own:
        optimizer.state[parameter] = own


def _group(optimizer: Optimizer, parameter: nn.Parameter) -> dict:
    """The group that holds the parameter. Raises KeyError where none does."""
    for group in optimizer.param_groups:
        if any(held is parameter for held in group["params"]):
            return group
    raise KeyError("the optimizer does not hold this parameter")


@dataclass(kw_only=True)
class StepConfig:
    milestones: list[float] = field(default_factory=list)  # where the rate is multiplied by gamma, in `unit`
    unit: Literal["epochs", "updates"] = "epochs"  # unit of milestones
    gamma: float = 0.1  # factor at each milestone (paper: ÷10)
    warmup_updates: int = 0  # updates over which the rate rises linearly from 0; the paper names none

    def check(self) -> None:
        require(self, "milestones", "warmup_updates", "gamma", low=0)
        if sorted(self.milestones) != self.milestones:
            raise ValueError("milestones: must ascend")


@registry.register_scheduler("step")
class StepSchedule:
    """Linear warm-up, then the rate times gamma at each milestone: a function of the position alone."""

    Config = StepConfig

    def __init__(self, config: StepConfig):
        self.config = config

    def __call__(self, update: int, epoch: float) -> float:
        """Factor on the learning rates at `update` (counted from 1), which starts when `epoch` passes are done."""
        passed = epoch if self.config.unit == "epochs" else update - 1
        decay = self.config.gamma ** sum(passed >= milestone for milestone in self.config.milestones)
        warmup = self.config.warmup_updates
        return decay * (min(1.0, update / warmup) if warmup else 1.0)
