"""A long run with an evaluation and a checkpoint every 50 updates: what grows."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fault_table import Bench, Row

UPDATES, EVERY = 1500, 50
WINDOWS = (300, 600), (1200, 1500)  # updates: nothing but the logs may grow from the one to the other
GROWTH_MB, GROWTH_HANDLES = 60, 3


def long(bench: Bench) -> Iterator[Row]:
    """Resident memory, descriptors, threads and the logs' sizes, by /proc, of the run and its workers."""
    course = bench.course("long", UPDATES, 1)
    course.options += [
        f"training.evaluation_interval={EVERY}",
        f"training.checkpoint_interval={EVERY}",
        "training.batch_size=2",
    ]
    process, seen = course.start(), {}
    while process.poll() is None:
        update = course.update()
        if update and update // EVERY > max(seen, default=-EVERY) // EVERY:
            with contextlib.suppress(OSError):  # it has just ended
                seen[update] = usage(process.pid)
        time.sleep(0.3)
    windows = [[seen[update] for update in seen if first <= update <= last] for first, last in WINDOWS]
    if process.returncode or not all(windows):
        yield Row("1,500 updates", 1, 0, None, False, course.said().strip().splitlines()[-1][:150])
        return
    # the least of each: at a single moment a checkpoint may be open, or a batch underway
    (memory_then, handles_then, threads_then), (memory, handles, threads) = (map(min, zip(*w, strict=True)) for w in windows)
    logs = sum(path.stat().st_size for path in course.folder.rglob("*") if path.name.startswith(("log", "events", "evalu")))
    kept = len(course.checkpoints())
    right = memory - memory_then < GROWTH_MB and handles - handles_then < GROWTH_HANDLES and threads <= threads_then
    note = (
        f"least of updates 300 to 600, of 1200 to 1500: memory {memory_then} to {memory} MB, descriptors {handles_then} to "
        f"{handles}, threads {threads_then} to {threads}; logs {logs // 1000} kB, {kept} checkpoints kept"
    )
    is_whole = [record["update"] for record in course.records()] == list(range(1, UPDATES + 1))
    yield Row("1,500 updates, evaluation and checkpoint every 50", 1, int(right), 0, is_whole, note)


def usage(pid: int) -> tuple[int, int, int]:
    """Resident megabytes, open descriptors and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(status["VmRSS"].split()[0]) // 1000, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])
