"""Worker processes that read batches: torch's DataLoader, and what it leaves out when a worker dies or never comes up."""

import functools
import multiprocessing
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator

from torch.utils.data import DataLoader

from pixelbert_plugin.data.reader import BatchReader, Failure, MicroBatch
from pixelbert_plugin.linux import end_with_parent
from pixelbert_plugin.types import Batch

# forked workers share the samples' columns; Python 3.14 would start fresh ones and copy them
START_METHOD = "fork" if sys.platform == "linux" else None
START_SECONDS = 30.0  # a forked worker says hello within milliseconds
PID = struct.Struct("i")


class WorkerDeath(Exception):
    """A worker was killed or never started; its cause, or its text, says what is known of it."""


def read_in_workers(
    reader: BatchReader, micro_batches: Iterable[MicroBatch], num_workers: int, pin_memory: bool
) -> Iterator[Batch | Failure]:
    """The batch of each micro-batch, in order; read in this process where `num_workers` is 0.

    Raises WorkerDeath; then all workers are gone, and batches asked for but not given are lost.
    """
    context = START_METHOD if num_workers else None
    hellos, hello = os.pipe()
    try:
        loader = DataLoader(
            reader,
            sampler=micro_batches,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=4 if num_workers else None,
            multiprocessing_context=context,
            worker_init_fn=functools.partial(_prepare_worker, hello if context == "fork" else None),
        )
        former, before = signal.getsignal(signal.SIGCHLD), {child.pid for child in multiprocessing.active_children()}
        batches = iter(loader)
        if former is not None and threading.current_thread() is threading.main_thread():
            # torch's handler raises wherever the program is, in the midst of an update too; without it `next` finds out
            signal.signal(signal.SIGCHLD, former)
        if context == "fork":
            _await_hellos(hellos, before)
    finally:
        os.close(hellos)
        os.close(hello)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # it died while its batch was taken over
            raise WorkerDeath(str(error)) from error
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise WorkerDeath(str(error)) from error
            raise
        yield batch


def _prepare_worker(hello: int | None, _worker: int) -> None:
    """A worker outlives a kill -9 of the run where it waits to hand over a batch: let it end with its parent."""
    end_with_parent()
    if hello is not None:
        os.write(hello, PID.pack(os.getpid()))


def _await_hellos(hellos: int, before: set[int | None]) -> None:
    """Wait until every new child has said hello; kill those that do not.

    A fork copies locks that other threads (of gloo, of TensorBoard) hold at that moment, and in the child nobody gives them
    back: CPython before 3.12 can hang so within fork itself (`HEAD_LOCK` in `PyOS_AfterFork_Child`).
    """
    waiting = {child.pid: child for child in multiprocessing.active_children() if child.pid not in before}
    deadline = time.monotonic() + START_SECONDS
    while waiting and time.monotonic() < deadline:
        if select.select([hellos], [], [], 0.5)[0]:
            waiting.pop(PID.unpack(os.read(hellos, PID.size))[0], None)
        waiting = {pid: child for pid, child in waiting.items() if child.is_alive()}  # the dead are found by `next`
    for child in waiting.values():
        child.kill()  # SIGTERM would wait for its turn for ever
        child.join()
    if waiting:
        raise WorkerDeath(f"{len(waiting)} of them hung while being started")
