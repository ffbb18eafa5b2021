"""The state of an optimizer by parameter, so that another one of the same rule can take it over."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pixelbert_plugin import interfaces


def option(optimizer: Optimizer, name: str) -> Any:
    """What the contract's optional member `name` is: a registered optimizer has it; torch's own classes know nothing of it."""
    return getattr(optimizer, name, getattr(interfaces.Optimizer, name))


def rule(optimizer: Optimizer) -> str:
    """What the state is of: another implementation of the same rule can go on from it."""
    return option(optimizer, "rule") or type(optimizer).__name__


def parameter_state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor | float]:
    """The optimizer's state of a parameter by torch's names, `step` too where Apex counts it per group; {} before a step."""
    state = {name: value for name, value in optimizer.state.get(parameter, {}).items() if value is not None}
    group = _group(optimizer, parameter)
    if state and option(optimizer, "counts_steps_by_group") and "step" in group:
        state["step"] = float(group["step"])
    return state


def set_parameter_state(optimizer: Optimizer, parameter: nn.Parameter, state: Mapping[str, Tensor | float]) -> None:
    """Put a `parameter_state`, of any optimizer of the same rule, where this one looks for it, in its types and devices."""
    group, own = _group(optimizer, parameter), {}
    for name, value in state.items():
        if name != "step":
            dtype = torch.float32 if option(optimizer, "has_float32_state") else parameter.dtype
            own[name] = torch.empty_like(parameter, dtype=dtype, requires_grad=False)  # with the parameter's strides
            own[name].copy_(torch.as_tensor(value))
        elif option(optimizer, "counts_steps_by_group"):
            group["step"] = max(int(value), group.get("step", 0))
        else:
            is_on_device = group.get("fused") or group.get("capturable")
            own["step"] = torch.tensor(float(value), device=parameter.device if is_on_device else "cpu")
    if own:
        optimizer.state[parameter] = own


def _group(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """The group that holds the parameter. Raises KeyError where none does."""
    for group in optimizer.param_groups:
        if any(held is parameter for held in group["params"]):
            return group
    raise KeyError("the optimizer does not hold this parameter")
