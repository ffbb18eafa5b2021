"""One model over several processes: DDP (every process holds all of it) or FSDP2 (each holds a shard of every block).

The gradient of an update is the sum over its samples, wherever they were computed: each process hands over the gradient of
its own share times W, and DDP and FSDP take the mean over the W processes.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from pixelbert_plugin.distributed.processes import Processes
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.types import Batch, ModelOutput

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule  # slow to import, and few runs need it


def choice(model: nn.Module, task: Task) -> dict[str, Any]:
    """What a model's forward in training is given beside the batch: which rows send gradient, where the task chooses some."""
    return {"choose": task.chosen} if task.chosen is not None and cast(Model, model).takes_choose else {}


class Losses(nn.Module):
    """Model and loss as one module: DDP then sees which parameters no loss depends on, such as those of unused heads."""

    def __init__(self, model: nn.Module, task: Task, precision: Precision):
        super().__init__()
        self.model, self.task, self.precision = model, task, precision
        self.choice = choice(model, task)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """By part of the loss, its sum over the micro-batch."""
        with self.precision.autocast():
            output = self.model(batch, **self.choice)
        return self.task.loss(output, batch)


class Parallel(Protocol):
    """How the gradients of several processes are brought together."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Forward pass and losses of a micro-batch."""

    def accumulating(self, is_last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of a micro-batch: gradients are exchanged only at the update's last one."""


class Alone:
    """A single process: nothing to exchange."""

    def __init__(self, losses: Losses):
        self.losses = losses

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(batch)

    def accumulating(self, is_last: bool) -> AbstractContextManager[Any]:
        return nullcontext()


class Ddp(Alone):
    """torch's DistributedDataParallel."""

    def __init__(self, losses: Losses):
        device = next(losses.parameters()).device
        # broadcast_buffers: the only buffers that change are batch norms' running statistics, which training does not
        # read; `share_buffers` does it before they are. find_unused_parameters: for heads that a loss leaves out; the
        # buckets then also stay as they are, so that sums are formed in the same order after a resume.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the newer name of broadcast_buffers is not in torch 2.8
            self.ddp = DistributedDataParallel(
                losses,
                device_ids=[device] if device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=True,
            )

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        return self.ddp(batch)

    def accumulating(self, is_last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if is_last else self.ddp.no_sync()


class Fsdp(Alone):
    """FSDP2. The model was sharded by `shard` before its optimizers were built."""

    def accumulating(self, is_last: bool) -> AbstractContextManager[Any]:
        model = cast("FSDPModule", self.losses.model)
        model.set_requires_gradient_sync(is_last)
        model.set_is_last_backward(is_last)
        return nullcontext()


def shard(model: nn.Module) -> None:
    """Shard the parameters over all processes, in place: by the model's `shard_units()` (blocks), then what is left."""
    from torch.distributed.fsdp import fully_shard

    _register_output()
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")  # changed in place by nobody
    mesh = dist.init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    units: Any = model  # it has what interfaces.Model says
    for block in units.shard_units():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@cache
def _register_output() -> None:
    """Older torch finds an output's tensors, where FSDP's backward begins, only in classes it knows."""
    torch.export.register_dataclass(ModelOutput)


def wrap(name: str, losses: Losses, processes: Processes) -> Parallel:
    """The way that `training.parallel` names."""
    if name == "fsdp":
        return Fsdp(losses)
    return Ddp(losses) if processes.world_size > 1 else Alone(losses)


def share_buffers(model: nn.Module, processes: Processes) -> None:
    """Give every process the main one's buffers: each has seen other images, so their batch norms' statistics differ."""
    if processes.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """All parameters of a sharded model present in each process: its forward passes then talk to no other process, so
    that processes may run unequal numbers of them (FSDP would wait forever). For evaluation, where gradients take no room.
    """
    blocks: list[Any] = [module for module in model.modules() if hasattr(module, "set_reshard_after_forward")]
    for block in blocks:
        block.set_reshard_after_forward(False, recurse=False)
        block.unshard()
    try:
        yield
    finally:
        for block in blocks:
            block.reshard()
            block.set_reshard_after_forward(block is not model, recurse=False)


def local(value: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def on_all(tensors: list[Tensor], test: Callable[[Tensor], Tensor], processes: Processes) -> bool:
    """Whether `test` (tensor → bool scalar) holds for every tensor in every process. Waits for the device."""
    failed = not torch.stack([test(local(value)) for value in tensors]).all()
    return not processes.any(failed)
