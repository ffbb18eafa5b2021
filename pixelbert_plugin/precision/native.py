"""Numerical precision by name. A precision owns the step of all optimizers: one norm, one clipping, one decision."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from pixelbert_plugin import registry
from pixelbert_plugin.precision.loss_scale import LossScale
from pixelbert_plugin.precision.master_weights import MasterWeights
from pixelbert_plugin.precision.options import Fp16Config
from pixelbert_plugin.registry.schema import ConfigError

ROW = 1024  # numbers whose squares are summed in float32, on a CPU


class Precision:
    """How a step is computed, and the base of every precision: by itself, float32 throughout.

    The order of calls: build, `prepare`, then for each update forward passes inside `autocast`, a `backward` for each and
    one `step`.
    """

    float32_products = "highest"  # how a GPU multiplies float32 matrices, in torch's words
    skips_overflow = False  # whether an update is skipped whose gradient is not finite; else that is the trainer's error
    loss_scale: float | None = None  # factor on the loss in `backward`; None: no scaling
    skipped_updates = 0

    def __init__(self, device: torch.device):
        self.device = device
        self.masters = MasterWeights()
        if device.type == "cuda":
            torch.set_float32_matmul_precision(self.float32_products)
            torch.backends.cudnn.allow_tf32 = self.float32_products != "highest"

    @property
    def description(self) -> dict[str, str]:
        """What is really used, for logs and checkpoints."""
        return {"precision": registry.place_of(self).name, "backend": "native"}

    def prepare(self, model: nn.Module, optimizers: dict[str, Optimizer]) -> None:
        """Once, before the first forward pass and before DDP: cast the model and give the optimizers what they step.

        `model` is on its device in float32 with its final weights, `optimizers` are new (or none, for an evaluation).
        """

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""
        return nullcontext()

    def backward(self, loss: Tensor, is_last: bool = True) -> None:
        """Add the loss's gradients; `is_last` in the last micro-batch of an update."""
        loss.backward()

    def step(self, optimizers: Iterable[Optimizer], max_norm: float | None) -> Tensor:
        """Clip by the norm of all gradients, step every optimizer, clear the gradients. Returns the norm (scalar float32).

        With `skips_overflow`, a norm that is not finite means that no optimizer was stepped. The norm is of all gradients
        on all processes, so that every process decides alike.
        """
        optimizers = list(optimizers)
        held = held_parameters(optimizers)
        norm = global_norm(held, self.device)
        clip_gradients(held, max_norm, norm)
        for optimizer in optimizers:
            optimizer.step()
        clear_gradients(optimizers)
        return norm

    def group_norms(self, optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """By parameter group, the norm of its gradients between `backward` and `step` (scalar float32), before clipping."""
        return {name: global_norm(held_parameters([optimizer]), self.device) for name, optimizer in optimizers.items()}

    def optimized(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """By the model's names, what checkpoints save: the float32 master of a weight where there is one, else itself."""
        return {name: self.masters.of(parameter) for name, parameter in model.named_parameters()}

    def state_dict(self) -> dict[str, float | int]:
        """The state of a dynamic loss scale; {} where there is none."""
        return {}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Take over the state of this or another precision, as far as it is of use here."""


@registry.register_precision("fp32")
class Fp32(Precision):
    """Single precision throughout; on a GPU without TensorFloat-32."""


@registry.register_precision("tf32")
class Tf32(Precision):
    """Single precision whose matrix products and convolutions run as TensorFloat-32 (10 bits of mantissa); needs Ampere."""

    float32_products = "high"

    def __init__(self, device: torch.device):
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
            raise ConfigError("training.precision", "'tf32' needs a GPU of compute capability 8.0 or more; use fp32")
        super().__init__(device)


@registry.register_precision("bf16")
class Bf16(Precision):
    """bfloat16 autocast over float32 weights; its range needs no loss scaling."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        if device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise ConfigError("training.precision", "'bf16': this GPU has no bfloat16; use fp16 or fp32")

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class Scaled(Precision):
    """A precision that scales the loss, and may keep float32 masters of float16 weights."""

    def __init__(self, device: torch.device, scale: LossScale):
        super().__init__(device)
        self.scale = scale
        self.skips_overflow = scale.is_dynamic

    @property
    def loss_scale(self) -> float:  # type: ignore[override]  # nobody sets a precision's
        return self.scale.value

    @property
    def skipped_updates(self) -> int:  # type: ignore[override]  # likewise
        return self.scale.skipped_updates

    def backward(self, loss: Tensor, is_last: bool = True) -> None:
        # float16 gradients of all micro-batches add up as they are: DDP must find them in the model's parameters
        (loss.float() * self.scale.value).backward()

    def step(self, optimizers: Iterable[Optimizer], max_norm: float | None) -> Tensor:
        optimizers = list(optimizers)
        held = held_parameters(optimizers)
        self.masters.collect_gradients()
        gradients = [parameter.grad for parameter in held if parameter.grad is not None]
        if self.scale.value != 1 and gradients:
            torch._foreach_mul_(gradients, 1 / self.scale.value)
        norm = global_norm(held, self.device)
        is_skipped = self.skips_overflow and not bool(norm.isfinite())
        if not is_skipped:
            clip_gradients(held, max_norm, norm)
            for optimizer in optimizers:
                optimizer.step()
            self.masters.write_back()
        clear_gradients(optimizers)
        self.scale.update(is_skipped)
        return norm

    def group_norms(self, optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """The gradients are still the model's own then, times the loss scale."""
        owners, found = self.masters.owners(), {}
        for name, optimizer in optimizers.items():
            own = [owners.get(parameter, parameter) for parameter in held_parameters([optimizer])]
            found[name] = global_norm(own, self.device) / self.scale.value
        return found

    def state_dict(self) -> dict[str, float | int]:
        return self.scale.state_dict()

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        self.scale.load_state_dict(state)


@registry.register_precision("fp16")
class Fp16(Scaled):
    """float16 autocast over float32 weights, the loss scaled dynamically."""

    Config = Fp16Config

    def __init__(self, config: Fp16Config, device: torch.device):
        super().__init__(device, LossScale(config.init_scale, growth_interval=config.growth_interval))

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.float16)


def held_parameters(optimizers: Iterable[Optimizer]) -> list[nn.Parameter]:
    """The parameters that the optimizers step."""
    return [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]


def global_norm(parameters: list[nn.Parameter], device: torch.device) -> Tensor:
    """Scalar float32 norm of all gradients together; of sharded ones (DTensor), over all processes. 0 where there are none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if device.type == "cpu":
        gradients = [_norm_on_cpu(gradient) for gradient in gradients]
    else:  # a float16 norm overflows at 65504
        gradients = [torch.linalg.vector_norm(g, dtype=torch.float32) if g.dtype == torch.half else g for g in gradients]
    sharded = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    norm = get_total_norm([gradient for gradient in gradients if not isinstance(gradient, DTensor)])
    if sharded:
        of_sharded = cast(DTensor, get_total_norm(sharded))
        norm = torch.hypot(norm.to(device), of_sharded.full_tensor().to(norm.dtype))
    return norm.to(device, torch.get_default_dtype())


def _norm_on_cpu(gradient: Tensor) -> Tensor:
    """Scalar float64, for the norm of norms is the norm of all.

    A CPU adds up a tensor's squares one by one: in float32 the norm of 4 million comes out 0.03 % too small, that of their
    halves half as much. To turn each number into a float64 takes twenty times as long as its square. So the squares of a short
    row are added up in float32 and the rows in float64, which is right to 1e-8.
    """
    if isinstance(gradient, DTensor) or gradient.dtype != torch.float32 or not gradient.is_contiguous():
        return torch.linalg.vector_norm(gradient, dtype=torch.float64)
    flat = gradient.view(-1)
    in_rows = len(flat) // ROW * ROW
    rows = torch.linalg.vector_norm(flat[:in_rows].view(-1, ROW), dim=1)
    return torch.linalg.vector_norm(torch.cat([rows, flat[in_rows:]]), dtype=torch.float64)


def clip_gradients(parameters: list[nn.Parameter], max_norm: float | None, norm: Tensor) -> None:
    """Scale all gradients so that their norm, which is `norm`, becomes at most `max_norm`; None: leave them."""
    if max_norm is None:
        return
    for is_sharded in (False, True):  # torch scales no list of both
        clip_grads_with_norm_([p for p in parameters if isinstance(p.grad, DTensor) is is_sharded], max_norm, norm)


def clear_gradients(optimizers: Iterable[Optimizer]) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()  # without arguments: Apex's take none


def choose(name: str, options: dict[str, Any], device: torch.device) -> Precision:
    """The precision `name`, with its own of the `options` by name; `auto` is bf16 on a GPU that has it, else fp32."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return registry.build("precision", name, options.get(name), f"precision_config.{name}", device=device)
