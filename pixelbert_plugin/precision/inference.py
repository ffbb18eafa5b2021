"""Weights in the type that a precision computes in, once: autocast would cast all of them anew in every forward pass."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

CAST = (nn.Linear, nn.Conv2d)  # whose inputs and weights autocast casts


@torch.no_grad()
def cast_weights(model: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
    """Cast, in place and for inference alone, what `autocast` would: what the model computes stays the same to the last bit.

    A weight that anything else uses too, such as an embedding, stays as it is.
    """
    device = next(model.parameters()).device
    with autocast():
        dtype = F.linear(torch.ones(1, 1, device=device), torch.ones(1, 1, device=device)).dtype
    users = defaultdict[int, list[bool]](list)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)].append(isinstance(module, CAST))
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if all(users[id(parameter)]):
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
