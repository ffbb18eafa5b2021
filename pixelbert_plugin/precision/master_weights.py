"""float16 weights and their float32 masters: the model computes with the former, the optimizers hold the latter."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def is_norm_kept(module: nn.Module) -> bool:
    """Batch norms that stay float32, as with Apex: those with a scale and a shift, and those whose statistics are frozen."""
    from torchvision.ops import FrozenBatchNorm2d

    return (isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine) or isinstance(module, FrozenBatchNorm2d)


def cast_to_half(model: nn.Module, keeps_norms: bool) -> None:
    """Every float32 parameter and buffer to float16, in place, but for batch norms if `keeps_norms`; and what it is given."""
    for module in model.modules():
        if keeps_norms and is_norm_kept(module):
            continue
        for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if value.dtype == torch.float32:
                value.data = value.data.half()
    model.register_forward_pre_hook(lambda _module, inputs: tuple(_half(value) for value in inputs))


def _half(value: Any) -> Any:
    """Tensors of floats, and batches by their own `to`, as Apex does; all else as it is."""
    if isinstance(value, Tensor):
        return value.half() if value.is_floating_point() else value
    return value.to(torch.float16) if hasattr(value, "to") else value


class MasterWeights:
    """The float32 masters of a model's float16 parameters; empty where nothing is cast."""

    def __init__(self) -> None:
        self._of: dict[nn.Parameter, nn.Parameter] = {}  # the model's parameter → its master

    def remember(self, full: dict[nn.Parameter, Tensor]) -> None:
        """Make masters from the float32 weights of before the cast, for the parameters that are float16 now."""
        for parameter, value in full.items():
            if parameter.dtype == torch.float16:
                self._of[parameter] = nn.Parameter(value, requires_grad=parameter.requires_grad)

    def adopt(self, parameter: nn.Parameter, master: nn.Parameter) -> None:
        """Let `master`, made elsewhere, be the parameter's; it takes over the exact float32 weights."""
        master.data.copy_(self._of[parameter].data)
        self._of[parameter] = master

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """What stands for the parameter in optimizers and checkpoints: its master, or itself where it has none."""
        return self._of.get(parameter, parameter)

    def owners(self) -> dict[nn.Parameter, nn.Parameter]:
        """By master, the model's parameter: the reverse of `of`."""
        return {master: parameter for parameter, master in self._of.items()}

    def give_to(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Put the masters into the optimizers, which must be new."""
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = [self.of(parameter) for parameter in group["params"]]

    def collect_gradients(self) -> None:
        """Move the model's float16 gradients to the masters, as float32."""
        for parameter, master in self._of.items():
            if parameter.grad is not None:
                master.grad = parameter.grad.float()
                parameter.grad = None

    @torch.no_grad()
    def write_back(self) -> None:
        """The masters' values, rounded, into the model."""
        trained = [pair for pair in self._of.items() if pair[0].requires_grad]
        if trained:
            torch._foreach_copy_([own for own, _ in trained], [master for _, master in trained])


def full_weights(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Copies of the model's float32 parameters."""
    return {p: p.detach().clone() for p in model.parameters() if p.dtype == torch.float32}
