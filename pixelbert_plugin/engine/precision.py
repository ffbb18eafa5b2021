"""Numerical precision by name. A precision owns the step of all optimizers: one norm, one clipping, one decision."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError


@registry.register_precision("fp32")
class Fp32:
    """Single precision throughout."""

    def __init__(self, device: torch.device):
        self.device = device

    def autocast(self) -> AbstractContextManager:
        """Context of the forward pass."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(
        self, optimizers: Iterable[torch.optim.Optimizer], parameters: list[nn.Parameter], max_norm: float | None
    ) -> Tensor:
        """Clip by the global norm of all gradients, step every optimizer, clear the gradients. Returns the norm (scalar)."""
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if max_norm is not None:
            clip_grads_with_norm_(parameters, max_norm, norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm


@registry.register_precision("bf16")
class Bf16(Fp32):
    """bfloat16 autocast over float32 weights; its range needs no loss scaling."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        if device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError("training.precision='bf16': this GPU has no bfloat16; use fp32")

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose(name: str, device: torch.device) -> Fp32:
    """The precision of this name; `auto` is bf16 on a GPU that has it, else fp32."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return registry.build("precision", name, None, "training.precision", device=device)
