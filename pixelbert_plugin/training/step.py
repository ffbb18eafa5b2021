"""The gradient step: an update's micro-batches → losses, gradients, one norm, clipping, and every optimizer moved once.

Each part of the loss is the mean over all its terms in the update, however they fall into micro-batches and processes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from pixelbert_plugin.distributed.parallel import Parallel
from pixelbert_plugin.distributed.processes import Processes
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.registry import returned
from pixelbert_plugin.seeding import derive
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.types import Batch


@dataclass(kw_only=True)
class Step:
    """What turns micro-batches into moved weights; called once an update."""

    parallel: Parallel  # forward pass and losses of the model, on one process or several
    task: Task
    optimizers: dict[str, Optimizer]  # by parameter group of the model
    schedule: Callable[[int, float], float]  # update, epochs done → factor on the learning rates
    precision: Precision
    processes: Processes
    seed: int  # of dropout
    max_grad_norm: float | None = None  # clip the norm of all gradients together; None: no clipping
    group_norms: dict[str, Tensor] = field(default_factory=dict, init=False)  # of the last update that was asked for them

    def __call__(
        self,
        micro_batches: list[Batch],
        update: int,
        epoch: float,
        made_ready: Callable[[list[Batch]], Iterator[Batch]] = iter,
        with_norms: bool = False,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Update number `update` (from 1), which starts when `epoch` passes are done. `made_ready` gives each micro-batch in
        turn as the model takes it; only what the losses are divided by is asked of all of them before. `with_norms`: note
        the norm of the gradients of each parameter group, as they were before clipping, in `group_norms`.

        Returns this process's share of each part of the loss (scalars; over all processes they add up to the loss), and the
        norm of all gradients before clipping (scalar float32).
        """
        self._set_rates(self.schedule(update, epoch))
        totals = self._totals(micro_batches)
        losses = {part: torch.zeros((), device=total.device) for part, total in totals.items()}
        ready = made_ready(micro_batches)
        for index in range(len(micro_batches)):
            batch, is_last = next(ready), index == len(micro_batches) - 1
            torch.manual_seed(derive(self.seed, "dropout", update, index, self.processes.rank))
            with self.parallel.accumulating(is_last):
                parts = {part: value / totals[part] for part, value in self.parallel(batch).items()}
                # times W: what several processes compute is averaged, see distributed/parallel.py
                self.precision.backward(cast(Tensor, sum(parts.values())) * self.processes.world_size, is_last)
            for part, value in parts.items():
                losses[part] += value.detach()
            del batch  # before the next is asked for: `enumerate` would hold it until then
        self.group_norms = self.precision.group_norms(self.optimizers) if with_norms else {}
        norm = self.precision.step(self.optimizers.values(), self.max_grad_norm)  # one norm, clip, one decision for all
        is_norm = isinstance(norm, Tensor) and norm.numel() == 1
        returned.require(is_norm, self.precision, "step(optimizers, max_norm)", "the gradients' norm, a scalar tensor", norm)
        return losses, norm

    def rates(self) -> dict[str, float]:
        """The learning rate of each parameter group's optimizer, as the last update used it."""
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}

    def _set_rates(self, factor: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def _totals(self, micro_batches: list[Batch]) -> dict[str, Tensor]:
        """By part of the loss, how many terms it has in the update, over all processes."""
        counts = [self.task.counts(batch) for batch in micro_batches]
        names = list(counts[0])
        sums = [cast(Tensor, sum(count[part] for count in counts)) for part in names]
        totals = self.processes.sum(torch.stack(sums).float().to(self.precision.device))
        return dict(zip(names, totals.clamp(min=1), strict=True))
