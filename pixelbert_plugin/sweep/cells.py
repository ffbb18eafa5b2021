"""Running a sweep's cells, each in a process of its own, so that a crash costs one cell and a rerun goes on from it."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pixelbert_plugin.errors import RunError, UserError, replacing, writing
from pixelbert_plugin.sweep.plan import Cell
from pixelbert_plugin.system.linux import PARENT_PIPE, num_cores

RECORD = "cell.json"  # what a cell's folder was made with
LOCK = ".sweep.lock"


def results(cell: Cell) -> dict[str, float] | None:
    """results.json of a cell that ran to its end, else None: a run adds to the file split by split."""
    path = cell.folder / "results.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or (cell.metric is not None and not isinstance(found.get(cell.metric), int | float)):
        return None
    return found


class Started(set[subprocess.Popen[bytes]]):
    """The processes of the cells that run now."""

    is_stopping = False

    def add(self, process: subprocess.Popen[bytes]) -> None:
        super().add(process)
        if self.is_stopping:  # it was being started when the others were told
            process.terminate()

    def stop(self) -> None:
        """Let them save and end."""
        self.is_stopping = True
        for process in self.copy():
            process.terminate()

    def kill(self) -> None:
        for process in self.copy():
            process.kill()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder while this lasts. Raises UserError where one is at work there."""
    with writing(folder, "save_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            who = os.pread(lock, 200, 0).decode(errors="replace") or "another sweep"
            raise UserError(f"save_dir={str(folder)!r}: {who} runs its cells now; wait for it, or stop it") from error
        except OSError as error:
            print(f"{folder}: cannot be locked ({error.strerror}): let no other sweep run in it", file=sys.stderr)
        with writing(folder, "save_dir"):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(lock)


def run_all(wanted: list[Cell], jobs: int, console: Console, tell: Callable[[], object]) -> int:
    """Run cells, `jobs` at a time, each after the one it needs; `tell` after each. Returns how many are not done.

    Where this is interrupted, the cells that run are told to save, and waited for; a second interruption kills them. Raises
    UserError, before anything runs, where a cell's folder holds a run of other options.
    """
    for cell in wanted:
        refuse_other_options(cell)
    waiting, running, started, failed = list(wanted), dict[Future[bool], Cell](), Started(), 0
    num_threads = max(1, num_cores() // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                unfinished = {cell.checkpoint for cell in [*waiting, *running.values()]}
                ready = [cell for cell in waiting if cell.needs not in unfinished]
                for cell in ready[: jobs - len(running)]:
                    waiting.remove(cell)
                    running[pool.submit(run, cell, console, num_threads, started)] = cell
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    failed += not _outcome(future, running.pop(future), console)
                    tell()
        except BaseException:
            _stop(started, running, console)
            raise
    return failed


def _outcome(future: Future[bool], cell: Cell, console: Console) -> bool:
    """Whether a cell is done; one that could not even be started costs no other cell anything."""
    try:
        return future.result()
    except RunError as error:
        console.out(f"{cell.folder}: failed: {error}", highlight=False)
        return False


def _stop(started: Started, running: dict[Future[bool], Cell], console: Console) -> None:
    try:
        started.stop()
        if started:
            console.out(f"stopping: {len(started)} cells save what they have; once more kills them", highlight=False)
        wait(running)
    except BaseException:
        started.kill()
        raise


def refuse_other_options(cell: Cell) -> None:
    """Raise UserError where the folder holds a run of other options: mixing the two would make a wrong table."""
    record = cell.folder / RECORD
    try:
        is_other = record.exists() and json.loads(record.read_text(encoding="utf-8")) != list(cell.arguments)
    except (OSError, ValueError):
        is_other = True
    if is_other:
        raise UserError(f"{cell.folder}: holds a run of other options (see {record}); delete it or choose another save_dir")


def run(cell: Cell, console: Console, num_threads: int, started: Started) -> bool:
    """Run a cell unless it is done. False where it failed; its output is in `cell.log`, its process in `started`.

    The process leads a group of its own, so that Ctrl-C is the sweep's alone, and ends with the sweep, however that ends.
    Raises UserError where the folder holds a run of other options.
    """
    refuse_other_options(cell)
    if results(cell) is not None:
        return True
    if cell.needs is not None and not cell.needs.exists():
        console.out(f"{cell.folder}: waits for {cell.needs}", highlight=False)
        return False
    command = [sys.executable, "-m", "pixelbert_plugin", *cell.arguments, "checkpoint.resume=true"]
    log = cell.folder / "cell.log"
    console.out(f"running {cell.row}, {cell.stage}, seed {cell.seed}; {log}", highlight=False)
    reader, writer = os.pipe()  # the writer closes when this process ends
    try:
        with writing(cell.folder, "save_dir"):
            cell.folder.mkdir(parents=True, exist_ok=True)
            record = cell.folder / RECORD
            with replacing(record) as aside:
                aside.write_text(json.dumps(list(cell.arguments), indent=1), encoding="utf-8")
            with log.open("a", encoding="utf-8") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={"OMP_NUM_THREADS": str(num_threads), **os.environ, PARENT_PIPE: str(reader)},
                    pass_fds=(reader,),
                    start_new_session=True,
                )
        with process:
            started.add(process)
        started.remove(process)
    finally:
        os.close(reader)
        os.close(writer)
    if process.returncode or results(cell) is None:
        if not started.is_stopping:
            console.out(f"  {_failure(process.returncode)}: {_last_line(log)}", highlight=False)
        return False
    return True


def _failure(status: int) -> str:
    if status == -signal.SIGKILL:
        return "killed (SIGKILL: by hand, or because memory ran out)"
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"failed with exit status {status}"


def curve(cell: Cell, metric: str) -> list[tuple[int, float]]:
    """(update, value) of a validation metric over a cell's training."""
    path = cell.folder / "evaluations.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["update"], row[metric]) for row in rows if metric in row]


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
