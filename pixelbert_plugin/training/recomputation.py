"""Gradient checkpointing: of a model's blocks the forward pass keeps the inputs alone, and the backward pass computes each
block once more when it needs what is inside. The gradients are the same to the last bit."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.registry.schema import ConfigError


def recompute_blocks(model: nn.Module, name: str) -> None:
    """Compute the model's `shard_units()` again in the backward pass, in place; `name`: of the model, for errors.

    Dropout draws the same twice, and batch norms count a batch once. Only `forward` is wrapped, so that names of weights stay
    and hooks (FSDP's) run once. Raises ConfigError where the model has no such blocks.
    """
    units = cast(Model, model).shard_units()
    if not units:
        raise ConfigError(
            "training.gradient_checkpointing",
            f"the model {name!r} has no shard_units(), the blocks that would be computed again; set it to false",
        )
    for unit in units:
        unit.forward = partial(_forward, unit, unit.forward)


def _forward(unit: nn.Module, forward: Any, *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():  # an evaluation, a frozen CNN
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, unit), **named)


def _contexts(unit: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Of the first forward pass and of the second."""
    return nullcontext(), _UnchangedBuffers(unit)


class _UnchangedBuffers(AbstractContextManager[None]):
    """The second forward pass leaves a block's buffers, such as a batch norm's running statistics, as the first one did."""

    def __init__(self, unit: nn.Module):
        self.unit = unit

    def __enter__(self) -> None:
        self.before = [(buffer, buffer.clone()) for buffer in self.unit.buffers()]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for buffer, value in self.before:
            buffer.data.copy_(value)  # `data`: autograd, which would refuse a saved tensor that changed, does not see it
