"""Worker processes that read batches: torch's DataLoader, and what it leaves out.

That is: a wait that ends, at SIGTERM and after `timeout_seconds`; the true cause where a worker dies, cannot be started or
cannot hand over its batch, and the image it was reading; workers that hang inside fork; plugins in spawned workers.
"""

import ctypes
import errno
import functools
import multiprocessing
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pixelbert_plugin.data.handover import Parcel, Sender
from pixelbert_plugin.data.reader import BatchReader, Failure, MicroBatch, Reading
from pixelbert_plugin.errors import LostProcessError, Stopped, UserError
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.system.linux import end_with_parent

# forked workers share the samples' blocks; Python 3.14 would start fresh ones and copy them
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
START_SECONDS = 30.0  # a forked worker says hello within milliseconds
LOOK_SECONDS = 1.0  # how often a wait looks for a signal, dead workers and the time limit
GRACE_SECONDS = 10.0  # that a batch may still take after SIGTERM
PREFETCHED = 4  # batches of each worker
NOTE_BYTES = 1024  # a worker's process id and the path of the image that it is reading
PID = struct.Struct("i")
IN_PROCESS = "training.num_workers=0 reads in the training process"


class WorkerDeath(Exception):
    """A worker was killed or never started; the text says what is known of it."""


@dataclass(frozen=True)
class Wait:
    """How long to wait for a batch."""

    timeout_seconds: float = 1800  # without one
    is_interrupted: Callable[[], bool] = bool  # whether SIGTERM or Ctrl-C has come


def read_in_workers(
    reader: BatchReader, micro_batches: Iterable[MicroBatch], num_workers: int, pin_memory: bool, wait: Wait | None = None
) -> Iterator[Reading | Failure]:
    """The batch of each micro-batch, in order; read in this process where `num_workers` is 0.

    Raises WorkerDeath; then all workers are gone, and batches asked for but not given are lost. Raises LostProcessError where
    none comes in time, Stopped where SIGTERM comes first, and UserError where the system's limits leave no room for workers.
    """
    if not num_workers:
        for micro_batch in micro_batches:
            reading = reader[micro_batch]
            yield reading.pin_memory() if pin_memory and isinstance(reading, Reading) else reading
        return
    batches, children, notes = _started(reader, micro_batches, num_workers, pin_memory)
    while True:
        try:
            batch = _next(batches, wait or Wait(), notes)
            if isinstance(batch, Parcel):
                batch = batch.open()
        except StopIteration:
            return
        except (KeyboardInterrupt, Stopped, LostProcessError):  # workers that hang would be waited for
            _kill(children)
            raise
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # it died while its batch was taken over
            raise WorkerDeath(_deaths(children, notes) or str(error)) from error
        except OSError as error:
            raise UserError(_no_room(error, num_workers)) from error
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise WorkerDeath(_deaths(children, notes) or str(error)) from error
            if "Too many open files" in str(error):
                raise UserError(_no_room(OSError(errno.EMFILE, ""), num_workers)) from error
            raise
        yield batch


class ParcelReader(Dataset[Parcel | Failure]):
    """In a worker: reads with a BatchReader and packs what it gives."""

    def __init__(self, reader: BatchReader, notes: Any):
        self.reader, self.notes = reader, notes
        self._sender = Sender(PREFETCHED + 1)  # when one more is asked for, the first of them has been mapped

    def __getitem__(self, micro_batch: MicroBatch) -> Parcel | Failure:
        reading = self.reader[micro_batch]
        if isinstance(reading, Failure):
            return reading
        try:
            return self._sender.send(reading)
        except Exception as error:
            return Failure(
                f"a batch cannot be sent from a data-loader worker: {_in_line(error)} (samples {reading.batch.sample_ids[:3]}, "
                f"…). What a task puts into batch.targets must be picklable; {IN_PROCESS}"
            )

    def prepare(self, worker: int) -> None:
        slot = memoryview(self.notes).cast("B")[worker * NOTE_BYTES : (worker + 1) * NOTE_BYTES]
        slot[: PID.size] = PID.pack(os.getpid())

        def note(path: Path | None) -> None:
            text = os.fsencode(path or "")[: NOTE_BYTES - PID.size - 1] + b"\0"
            slot[PID.size : PID.size + len(text)] = text

        self.reader.note = note

    def __reduce__(self) -> tuple[Any, ...]:
        """For a worker that is started afresh (spawn): the user's plugins are loaded before what is made of their classes."""
        return _restored, (plugins.user_files(), self.notes, pickle.dumps(self.reader))


class Unloadable(Dataset[Failure]):
    """In a spawned worker that could not load the user's plugin: gives the reason as each batch."""

    def __init__(self, reason: str):
        self.reason = reason

    def __getitem__(self, micro_batch: MicroBatch) -> Failure:
        return Failure(f"a data-loader worker cannot start: {self.reason}; {IN_PROCESS}")

    def prepare(self, worker: int) -> None:
        """It notes nothing."""


def _restored(files: list[Path], notes: Any, reader: bytes) -> ParcelReader | Unloadable:
    try:
        plugins.load_files(files)
        return ParcelReader(pickle.loads(reader), notes)
    except Exception as error:  # raised here it would end the worker with a traceback, and the run would hear "status 1"
        return Unloadable(str(error) if isinstance(error, UserError) else _in_line(error))


def _started(
    reader: BatchReader, micro_batches: Iterable[MicroBatch], num_workers: int, pin_memory: bool
) -> tuple[Iterator[Any], list[BaseProcess], Any]:
    """The DataLoader's iterator, its processes and their notes. Raises UserError where they cannot be started."""
    former, before = signal.getsignal(signal.SIGCHLD), {child.pid for child in multiprocessing.active_children()}
    hellos = hello = None
    try:
        hellos, hello = os.pipe()
        notes = multiprocessing.get_context(START_METHOD).RawArray(ctypes.c_char, num_workers * NOTE_BYTES)
        loader = DataLoader(
            ParcelReader(reader, notes),
            sampler=micro_batches,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=PREFETCHED,
            timeout=LOOK_SECONDS,
            multiprocessing_context=START_METHOD,
            worker_init_fn=functools.partial(_prepare_worker, hello if START_METHOD == "fork" else None),
        )
        batches = iter(loader)
        children = [child for child in multiprocessing.active_children() if child.pid not in before]
        if former is not None and threading.current_thread() is threading.main_thread():
            # torch's handler raises wherever the program is, in the midst of an update too; without it `next` finds out
            signal.signal(signal.SIGCHLD, former)
        if START_METHOD == "fork":
            _await_hellos(hellos, children)
    except OSError as error:
        _abandon(error, [child for child in multiprocessing.active_children() if child.pid not in before])
        raise UserError(_no_room(error, num_workers)) from error
    except (pickle.PicklingError, AttributeError, TypeError) as error:  # spawn sends the reader to its workers
        raise UserError(
            f"training.num_workers={num_workers}: a part of the data or a component cannot be sent to spawned workers "
            f"({_in_line(error)}); define it at the top of its module; {IN_PROCESS}"
        ) from error
    finally:
        for end in (hellos, hello):
            if end is not None:
                os.close(end)
    return batches, children, notes


def _prepare_worker(hello: int | None, worker: int) -> None:
    """A worker outlives a kill -9 of the run where it waits to hand over a batch: let it end with its parent."""
    from torch.utils.data import get_worker_info

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the main process decides
    info: Any = get_worker_info()  # torch knows of no `prepare`
    info.dataset.prepare(worker)
    if hello is not None:
        os.write(hello, PID.pack(os.getpid()))


def _await_hellos(hellos: int, children: list[BaseProcess]) -> None:
    """Wait until every new child has said hello; kill those that do not.

    A fork copies locks that other threads (of gloo, of TensorBoard) hold at that moment, and in the child nobody gives them
    back: CPython before 3.12 can hang so within fork itself (`HEAD_LOCK` in `PyOS_AfterFork_Child`).
    """
    waiting = {child.pid: child for child in children}
    deadline = time.monotonic() + START_SECONDS
    while waiting and time.monotonic() < deadline:
        if select.select([hellos], [], [], 0.5)[0]:
            waiting.pop(PID.unpack(os.read(hellos, PID.size))[0], None)
        waiting = {pid: child for pid, child in waiting.items() if child.is_alive()}  # the dead are found by `next`
    _kill(list(waiting.values()))
    if waiting:
        raise WorkerDeath(f"{len(waiting)} of them hung while being started")


def _abandon(error: BaseException, children: list[BaseProcess]) -> None:
    """An iterator that failed while it started its workers would print a traceback when it is freed."""
    _kill(children)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        half_made = frame.f_locals.get("self")
        if isinstance(half_made, _MultiProcessingDataLoaderIter):
            half_made._shutdown = True


def _kill(children: list[BaseProcess]) -> None:
    for child in children:
        child.kill()  # SIGTERM would wait for its turn for ever
        child.join()


def _next(batches: Iterator[Any], wait: Wait, notes: Any) -> Any:
    """The next batch; a wait for it ends at the time limit, and soon after SIGTERM."""
    began, interrupted = time.monotonic(), None
    while True:
        try:
            return next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            now = time.monotonic()
            if wait.is_interrupted():
                interrupted = interrupted or now
                if now - interrupted > GRACE_SECONDS:
                    raise Stopped(
                        f"stopped by a signal while it waited for data ({_reading(notes)}); checkpoint.resume=true goes on "
                        "from the last checkpoint"
                    ) from error
            if now - began > wait.timeout_seconds:
                raise LostProcessError(
                    f"no batch of data within training.timeout_seconds={wait.timeout_seconds:g} ({_reading(notes)}). Look "
                    f"whether these files can be read, or allow more time; {IN_PROCESS}"
                ) from error


def _noted(notes: Any) -> dict[int, str]:
    """By process id, the path of the image that a worker is reading, or was when it died; "" where none."""
    slots = [notes[at : at + NOTE_BYTES] for at in range(0, len(notes), NOTE_BYTES)]
    return {PID.unpack_from(slot)[0]: os.fsdecode(slot[PID.size :].split(b"\0", 1)[0]) for slot in slots}


def _reading(notes: Any) -> str:
    paths = [path for path in _noted(notes).values() if path]
    return f"workers are reading {', '.join(paths)}" if paths else "no worker is reading an image"


def _deaths(children: list[BaseProcess], notes: Any) -> str:
    """How each dead worker ended, and what it was reading."""
    noted, found = _noted(notes), []
    for child in children:
        child.join(0)
        if child.pid is None or child.exitcode is None:
            continue
        how = f"with status {child.exitcode}"
        if child.exitcode < 0:
            how = f"by {signal.Signals(-child.exitcode).name}"
            if child.exitcode == -signal.SIGKILL:
                how += " (which the kernel sends where memory runs out: see dmesg)"
        path = noted.get(child.pid)
        found.append(f"worker {child.pid} was ended {how}" + (f" while it read {path}" if path else ""))
    return "; ".join(found)


def _no_room(error: OSError, num_workers: int) -> str:
    """One line for what the system refused."""
    import resource

    key, reason = f"training.num_workers={num_workers}", str(error)
    if error.errno == errno.EMFILE or "Too many open files" in reason:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{key}: too many open files for workers: the limit is {limit}; raise it with ulimit -n; {IN_PROCESS}"
    if error.errno == errno.EAGAIN:
        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        return f"{key}: workers cannot be started ({error.strerror}; limit of processes: {limit}, see ulimit -u); {IN_PROCESS}"
    if error.errno in (errno.ENOSPC, errno.ENOSYS, errno.EACCES, errno.ENOENT):
        return (
            f"{key}: workers cannot be started: /dev/shm has no room for their queues ({error.strerror}); empty or enlarge it "
            f"(docker run --shm-size=1g), or {IN_PROCESS}"
        )
    return f"{key}: workers cannot be started or read from ({_in_line(error)}); {IN_PROCESS}"


def _in_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
