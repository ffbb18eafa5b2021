"""A model in the type that a precision computes in, for inference alone.

Autocast casts all weights anew in every forward pass; and it computes layer norms in float32 and hands that on, so that between
any two of a transformer's products numbers are cast up and down again, which takes longer than the products do.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """torch's in the type of its weight; means and variances are computed in float32 all the same."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


CAST = (nn.Linear, nn.Conv2d, LayerNorm)  # whose inputs and weights are cast


@torch.no_grad()
def cast_weights(model: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
    """Cast, in place, what `autocast` would, which changes no bit of what is computed, and layer norms too, whose outputs are
    then rounded to that type.

    A weight that anything else uses too, such as an embedding, stays as it is.
    """
    device = next(model.parameters()).device
    with autocast():
        dtype = F.linear(torch.ones(1, 1, device=device), torch.ones(1, 1, device=device)).dtype
    if dtype == torch.float32:
        return
    for module in model.modules():
        if type(module) is nn.LayerNorm and module.weight is not None:
            module.__class__ = LayerNorm
    users = defaultdict[int, list[bool]](list)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)].append(isinstance(module, CAST))
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if all(users[id(parameter)]):
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
