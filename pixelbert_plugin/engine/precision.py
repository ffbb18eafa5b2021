"""Numerical precision by name. A precision owns the step of all optimizers: one norm, one clipping, one decision."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
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

    skips_overflow = False
    loss_scale = None
    skipped_updates = 0

    @property
    def description(self):
        return {"precision": type(self).__name__.lower(), "backend": "native"}

    def prepare(self, model, optimizers):
        pass

    def optimized(self, model):
        return dict(model.named_parameters())

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def backward(self, loss: Tensor, is_last: bool = True) -> None:
        loss.backward()

    def step(self, optimizers: Iterable[torch.optim.Optimizer], max_norm: float | None) -> Tensor:
        parameters = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
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
