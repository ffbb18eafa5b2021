"""The processes of a run, as torchrun starts them, and the few things they tell each other.

Everything works alike in one process without torchrun: then nothing is sent. W processes, ranks 0 … W - 1; rank 0 is `main`:
it alone writes files, logs and computes metrics.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pixelbert_plugin.errors import LostProcessError, RunError, UserError
from pixelbert_plugin.system import launched
from pixelbert_plugin.system.linux import end_with_parent

T = TypeVar("T")
# what torch's messages name where a process is gone: they come as plain RuntimeErrors
LOST = ("gloo", "nccl", "closed by peer", "connection reset", "broken pipe", "timed out", "timeout", "socket", "tcpstore")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int = 0
    world_size: int = 1
    timeout_seconds: float = 1800
    group: dist.ProcessGroup | None = None  # the way they talk; None: torch.distributed's own

    def apart(self) -> "Processes":
        """The same processes on a way of their own between CPUs, for a thread beside the training; called in each of them."""
        if not dist.is_initialized():
            return self
        group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.timeout_seconds))  # of all, so it is one
        return replace(self, group=group)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values`, of any shape, summed over the processes in place; on a GPU the host does not wait."""
        if self.world_size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. Sent from the host: no GPU is waited for."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(int(flag))))

    def gather(self, value: T) -> list[T] | None:
        """Every process's value, by rank, in the main process; None in the others."""
        if self.world_size == 1:
            return [value]
        values: list[Any] | None = [None] * self.world_size if self.is_main else None
        dist.gather_object(value, values, group=self.group)
        return values

    def on_main(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises (a RunError) in the main process, in every process; only main runs it."""
        if self.world_size == 1:
            return function()
        outcome: list[Any] = [None]
        if self.is_main:
            outcome = [_attempt(function)]
        dist.broadcast_object_list(outcome, group=self.group)
        return self._unpack(outcome[0], came_from=0)

    def together(self, function: Callable[[], T]) -> T:
        """`function()` of each process, which talks to no other; where one raises a RunError, all do, and one tells it."""
        if self.world_size == 1:
            return function()
        outcome = _attempt(function)
        errors: list[Any] = [None] * self.world_size
        dist.all_gather_object(errors, outcome[1], group=self.group)
        failed = next((rank for rank, error in enumerate(errors) if error is not None), None)
        if failed is None or failed == self.rank:  # the error itself, rather than its copy
            return self._unpack(outcome, came_from=self.rank)
        return self._unpack((None, errors[failed]), came_from=failed)

    def main_first(self, function: Callable[[], T]) -> T:
        """`function()` in every process, in the main one before the others, so that they find its caches."""
        if self.world_size == 1:
            return function()
        kept: list[T] = []
        self.on_main(lambda: kept.append(function()))
        return self.together(lambda: kept[0] if kept else function())

    def _unpack(self, outcome: tuple[Any, RunError | None], came_from: int | None) -> Any:
        value, error = outcome
        if error is not None:
            error.is_told = self.rank != came_from
            raise error
        return value


ALONE = Processes()


def _attempt(function: Callable[[], Any]) -> tuple[Any, RunError | None]:
    try:
        return function(), None
    except RunError as error:
        return None, error


@contextmanager
def connected(device: torch.device, timeout_seconds: float, needs_group: bool) -> Iterator[Processes]:
    """The processes that torchrun started, connected while this lasts: by NCCL between GPUs, by gloo between CPUs.

    `needs_group`: connect a single process too (FSDP asks for it). A program that has connected them itself keeps its
    group. Raises LostProcessError where another process was lost, or did not answer within `timeout_seconds`.
    """
    world_size, rank = launched.place(dist.is_initialized())
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()  # torchrun killed: its processes must not train on
    if world_size == 1 and not needs_group:
        yield Processes()
        return
    if dist.is_initialized():
        yield Processes(rank, world_size, timeout_seconds)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    timeout = timedelta(seconds=timeout_seconds)
    try:
        store: dist.Store = dist.HashStore()
        if world_size > 1:
            torchruns, _, _ = next(dist.rendezvous("env://", rank, world_size, timeout=timeout))
            store = fresh_store(torchruns, rank, world_size, timeout)
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=timeout, store=store)
        yield Processes(rank, world_size, timeout_seconds)
        if world_size > 1:
            dist.barrier()  # the last to finish must not find the others gone
        dist.destroy_process_group()
    except (RuntimeError, dist.DistError) as error:
        if world_size > 1 and is_loss(error):
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise LostProcessError(
                f"another process ended, or did not answer within training.timeout_seconds={timeout_seconds:g} ({reason}); "
                "its own message says why. checkpoint.resume=true goes on from the last checkpoint"
            ) from error
        raise
    finally:
        if world_size == 1 and dist.is_initialized():  # of several, a failed one ends without waiting for the others
            dist.destroy_process_group()


def fresh_store(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """A part of torchrun's store that no earlier life of these processes has written to.

    torchrun keeps its store when it restarts processes, so a process may find the address of one that is dead. Each says
    hello with a word of its own; the main process, which counts lives, answers to that word; a third message ends it.
    """
    deadline = time.monotonic() + timeout.total_seconds()

    def read(key: str) -> str:
        return store.get(key).decode() if store.check([key]) else ""

    def wait() -> None:
        if time.monotonic() > deadline:
            raise RuntimeError("timed out waiting for the other processes to start")
        time.sleep(0.02)

    if rank != 0:
        word = uuid.uuid4().hex
        store.set(f"hello/{rank}", word)
        while not (welcome := read(f"welcome/{rank}")).startswith(f"{word}:"):
            wait()
        store.set(f"agreed/{rank}", welcome)
        return dist.PrefixStore(f"life/{welcome.partition(':')[2]}", store)
    life = store.add("lives", 1)
    waiting = set(range(1, world_size))
    while waiting:
        for other in sorted(waiting):
            answer = f"{read(f'hello/{other}')}:{life}"
            if read(f"agreed/{other}") == answer:
                waiting.discard(other)
            elif answer != f":{life}":
                store.set(f"welcome/{other}", answer)
        wait()
    return dist.PrefixStore(f"life/{life}", store)


def is_loss(error: BaseException) -> bool:
    """Whether an error of torch.distributed means that another process is gone or silent."""
    if isinstance(error, RunError):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in LOST)


def local_device_index(num_devices: int) -> int:
    """Which of this machine's GPUs is this process's. Raises UserError where torchrun started more processes than GPUs."""
    index = launched.number("LOCAL_RANK", 0)
    if index < 0:
        raise UserError(f"LOCAL_RANK={index}: is below 0; {launched.UNSET}")
    if index >= num_devices:
        raise UserError(
            f"LOCAL_RANK={index}: torchrun started more processes here than this machine's {num_devices} GPU(s); "
            f"use --nproc-per-node={num_devices}, or training.device=cpu"
        )
    return index


def job_id() -> str | None:
    """torchrun's name of this job, the same after it restarted its processes; None without torchrun or --rdzv-id."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def is_restarted() -> bool:
    """Whether torchrun started this process in place of a failed one (--max-restarts)."""
    return launched.number("TORCHELASTIC_RESTART_COUNT", 0) > 0
