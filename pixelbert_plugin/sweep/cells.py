"""Running a sweep's cells, each in a process of its own, so that a crash costs one cell and a rerun goes on from it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from rich.console import Console

from pixelbert_plugin.errors import UserError, replacing, writing
from pixelbert_plugin.linux import num_cores
from pixelbert_plugin.sweep.plan import Cell


def results(cell: Cell) -> dict[str, float] | None:
    """results.json of a cell that ran to its end, else None: a run adds to the file split by split."""
    path = cell.folder / "results.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError:
        return None
    return None if found is None or (cell.metric is not None and cell.metric not in found) else found


def run_all(wanted: list[Cell], jobs: int, console: Console, tell: Callable[[], object]) -> int:
    """Run cells, `jobs` at a time, each after the one it needs; `tell` after each. Returns how many are not done."""
    waiting, running, processes, failed = list(wanted), dict[Future, Cell](), set[subprocess.Popen](), 0
    num_threads = max(1, num_cores() // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                unfinished = {cell.checkpoint for cell in [*waiting, *running.values()]}
                ready = [cell for cell in waiting if cell.needs not in unfinished]
                for cell in ready[: jobs - len(running)]:
                    waiting.remove(cell)
                    running[pool.submit(run, cell, console, num_threads, processes)] = cell
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    failed += not future.result()
                    tell()
        finally:
            for process in processes.copy():  # on the way out by an interruption or an error
                process.terminate()
    return failed


def run(cell: Cell, console: Console, num_threads: int, processes: set[subprocess.Popen]) -> bool:
    """Run a cell unless it is done. False where it failed; its output is in `cell.log`, its process in `processes`.

    Raises UserError where the folder holds a run of other options: mixing the two would make a wrong table.
    """
    command = [sys.executable, "-m", "pixelbert_plugin", *cell.arguments]
    record = cell.folder / "cell.json"
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) != list(cell.arguments):
        raise UserError(f"{cell.folder}: holds a run of other options (see {record}); delete it or choose another save_dir")
    if results(cell) is not None:
        return True
    if cell.needs is not None and not cell.needs.exists():
        console.out(f"{cell.folder}: waits for {cell.needs}", highlight=False)
        return False
    with writing(cell.folder, "save_dir"):
        cell.folder.mkdir(parents=True, exist_ok=True)
        with replacing(record) as aside:
            aside.write_text(json.dumps(list(cell.arguments), indent=1), encoding="utf-8")
        log = cell.folder / "cell.log"
        console.out(f"running {cell.row}, {cell.stage}, seed {cell.seed}; {log}", highlight=False)
        with log.open("a", encoding="utf-8") as output:
            environment = {"OMP_NUM_THREADS": str(num_threads), **os.environ}
            command.append("checkpoint.resume=true")
            with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process:
                processes.add(process)
            processes.remove(process)
    if process.returncode or results(cell) is None:
        last = _last_line(log)
        console.out(f"  failed with exit status {process.returncode}: {last}", highlight=False)
        return False
    return True


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
