"""Faults provoked on purpose, and what each cost: updates repeated, updates or data lost, losses changed.

    python benchmarks/faults.py [--kills 50] [--seed 1] [--only NAME …] [--folder FOLDER] > benchmarks/faults.txt

Runs Pixel-BERT on two processes (DDP, gloo) on a miniature VQA 2.0, a checkpoint every 5 updates, with augmentation, dropout,
accumulated gradients and a data-loader worker each. A fault has survived where `checkpoint.resume=true` (or, where the table
says so, nobody's hand) went on to the end and every loss and gradient norm of the log is that of an unbroken run to the last
bit. `disk full` mounts a tmpfs and `two hosts` makes network namespaces: both need root, and are left out without it.
"""

import argparse
import contextlib
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from fault_tools import (
    INTERVAL,
    Course,
    children_of,
    ended,
    kill,
    make_world,
    ranks,
    wait_for_random_moment,
    wait_until,
)

from pixelbert_plugin.engine.checkpoint import problem

UPDATES = 40  # of a course with one fault


@dataclass
class Row:
    """A line of the table."""

    fault: str
    times: int
    survived: int
    repeated: int  # most updates done again after one fault
    is_identical: bool  # the log at the end, to the unbroken run's
    note: str = ""

    def __str__(self) -> str:
        lost = "0" if self.is_identical else "some"
        same = "yes" if self.is_identical else "NO"
        return f"{self.fault:<56} {self.times:>5} {self.survived:>8} {self.repeated:>8} {lost:>5}  {same:<9} {self.note}"


HEAD = f"{'fault':<56} {'times':>5} {'survived':>8} {'repeated':>8} {'lost':>5}  identical note"


class Faults:
    """The scenarios; each is a method that yields the rows of the table."""

    def __init__(self, folder: Path, kills: int, seed: int):
        self.folder, self.kills, self.draw = folder, kills, random.Random(seed)
        self.data = make_world(folder / "world")
        self._unbroken: dict[tuple[int, int], list[tuple]] = {}

    def course(self, name: str, updates: int, processes: int = 2, **more) -> Course:
        return Course(self.data, self.folder / name, processes, [f"training.max_updates={updates}"], **more)

    def unbroken(self, updates: int, processes: int = 2) -> list[tuple]:
        """Losses of a run that nothing happens to. The first so many updates of any longer run are the same."""
        key = updates, processes
        if key not in self._unbroken:
            course = self.course(f"unbroken_{updates}_{processes}", updates, processes)
            if course.update() != updates:
                assert course.finish() == 0, course.output()[-3000:]
            self._unbroken[key] = course.losses()
        return self._unbroken[key]

    def row(self, fault: str, course: Course, times: int, survived: int, repeated: int, note: str = "") -> Row:
        """Go on to the end and compare."""
        updates = int(course.options[0].partition("=")[2])
        status = course.finish()
        same = status == 0 and course.losses() == self.unbroken(updates, course.processes)
        if status:
            note = f"exit status {status}: {course.output().strip().splitlines()[-1]}; {note}"
        return Row(fault, times, survived, repeated, same, note)

    def killed_again_and_again(
        self, fault: str, name: str, times: int, moment: Callable[[Course, subprocess.Popen], bool]
    ) -> Iterator[Row]:
        """SIGKILL of one of the two ranks at a moment, then the same command again."""
        course, survived, repeated, done = self.course(name, 4 * times + UPDATES), 0, 0, 0
        while done < times:
            process = course.start()
            if not moment(course, process):
                ended(process)
                if process.returncode == 0:
                    break
                continue
            kill(self.draw.choice(ranks(process)))
            done += 1
            status, reached = ended(process), course.update()
            is_whole = all(problem(path) is None for path in course.checkpoints())
            survived += status not in (None, 0) and is_whole
            repeated = max(repeated, reached - course.saved_update())
        yield self.row(fault, course, done, survived, repeated)

    def worker(self) -> Iterator[Row]:
        yield from self.killed_again_and_again(
            "SIGKILL of a rank, at random moments",
            "worker",
            self.kills,
            lambda course, process: wait_for_random_moment(course, process, self.draw),
        )

    def write(self) -> Iterator[Row]:
        def inside(course: Course, process: subprocess.Popen) -> bool:
            before = course.saved_update()  # a torn write of the life before may lie there until the next one begins
            found = course.has_begun(process) and wait_until(
                lambda: course.is_writing() and course.update() >= before + 2 * INTERVAL, process
            )
            time.sleep(self.draw.uniform(0, 0.03) if found else 0)
            return found

        yield from self.killed_again_and_again(
            "SIGKILL of a rank inside a checkpoint's writing", "write", max(2, self.kills // 5), inside
        )

    def elastic(self) -> Iterator[Row]:
        times = max(2, self.kills // 5)
        restarts = ["--standalone", "--nproc-per-node=2", f"--max-restarts={times + 2}"]
        course = self.course("elastic", 4 * times + UPDATES, torchrun=restarts)
        process, repeated, done = course.start(), 0, 0
        while done < times and wait_for_random_moment(course, process, self.draw):
            reached = course.update()
            kill(self.draw.choice(ranks(process)))
            done += 1
            repeated = max(repeated, reached - course.saved_update())
            wait_until(lambda reached=reached: course.update() < reached or course.update() > reached + INTERVAL, process)
        survived = done if ended(process, 900) == 0 else 0
        yield self.row("the same, torchrun --max-restarts, by no hand", course, done, survived, repeated)

    def agent(self) -> Iterator[Row]:
        course, survived, repeated = self.course("agent", UPDATES), 0, 0
        for _ in range(2):
            process = course.start()
            wait_for_random_moment(course, process, self.draw)
            process.kill()
            ended(process)
            survived += 1
            repeated = max(repeated, course.update() - course.saved_update())
        yield self.row("SIGKILL of torchrun alone (its ranks end with it)", course, 2, survived, repeated)

    def sigterm(self) -> Iterator[Row]:
        for processes, what in ((2, "torchrun"), (1, "a run without torchrun")):
            course = self.course(f"sigterm_{processes}", UPDATES, processes)
            process = course.start()
            wait_for_random_moment(course, process, self.draw)
            process.terminate()
            status = ended(process)
            is_saved = course.saved_update() == course.update() and "which is saved" in course.output()
            right = is_saved and (status == 75 if processes == 1 else status not in (0, None))
            note = f"exit status {status}" + (
                " (its ranks': 75)" if processes == 2 and "exitcode  : 75" in course.output() else ""
            )
            repeated = course.update() - course.saved_update()
            yield self.row(f"SIGTERM of {what}", course, 1, int(right), repeated, note)

    def disk(self) -> Iterator[Row]:
        with small_disk(self.folder / "small_disk", "600m") as disk:
            if disk is None:
                print("disk: a tmpfs cannot be mounted here (needs root); left out", file=sys.stderr)
                return
            course = Course(self.data, disk / "run", 2, [f"training.max_updates={UPDATES}"])
            process = course.start()
            wait_until(lambda: course.saved_update() >= INTERVAL, process)
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while shutil.disk_usage(disk).free > 20_000_000:  # less than a checkpoint takes
                    file.write(bytes(1_000_000))
            status, reached = ended(process), course.update()
            told = "cannot be written" in course.output() and "Traceback" not in course.output().split("cannot be written")[0]
            is_whole = all(problem(path) is None for path in course.checkpoints()) and course.saved_update() > 0
            ballast.unlink()
            yield self.row(
                "disk full while a checkpoint is written",
                course,
                1,
                int(told and is_whole and status != 0),
                reached - course.saved_update(),
            )

    def damage(self) -> Iterator[Row]:
        start = self.course("damage", UPDATES)
        process = start.start()
        wait_until(lambda: start.saved_update() >= 2 * INTERVAL, process)
        os.killpg(process.pid, signal.SIGKILL)
        ended(process)
        changes = {"torn": lambda content: content[: len(content) // 2], "with one bit flipped": flip}
        for what, change in changes.items():
            survived, repeated, files = 0, 0, [path.name for path in start.checkpoints()[-1].iterdir()]
            for name in files:
                course = start.copy(f"damage_{what.split()[0]}_{files.index(name)}")
                newest = course.saved_update()
                file = course.checkpoints()[-1] / name
                file.write_bytes(change(file.read_bytes()))
                process = course.start()
                wait_until(lambda course=course: "resuming from" in course.output(), process)
                told = f"checkpoint {file.parent} is refused" in course.output()
                survived += told and f"after update {newest - INTERVAL}" in course.output()
                repeated = max(repeated, newest - (newest - INTERVAL))
                os.killpg(process.pid, signal.SIGKILL)
                ended(process)
            yield self.row(f"newest checkpoint {what}, each of its files", course, len(files), survived, repeated)

    def loader(self) -> Iterator[Row]:
        course, survived = self.course("loader", UPDATES), 0
        process = course.start()
        for target in (5, 15, 25):
            wait_until(lambda target=target: course.update() >= target, process)
            kill(self.draw.choice([child for rank in ranks(process) for child in children_of(rank)] or [0]))
        survived = 3 if ended(process, 300) == 0 and course.output().count("a data-loader worker died") == 3 else 0
        yield self.row("SIGKILL of a data-loader worker", course, 3, survived, 0, "goes on by itself")

    def image(self) -> Iterator[Row]:
        course = self.course("image", UPDATES)
        process = course.start()
        wait_until(lambda: course.update() >= INTERVAL + 2, process)
        images = sorted((self.data / "coco").rglob("*.jpg"))
        kept = {path: path.read_bytes() for path in images}
        for path in images:
            path.write_bytes(kept[path][:100])
        status, reached = ended(process), course.update()
        for path, content in kept.items():
            path.write_bytes(content)
        told = "not a readable image" in course.output()
        yield self.row(
            "images rot during the run, then are restored",
            course,
            1,
            int(told and status != 0),
            reached - course.saved_update(),
        )

    def second(self) -> Iterator[Row]:
        course = self.course("second", UPDATES)
        process = course.start()
        wait_until(lambda: course.update() >= 2, process)
        other = Course(self.data, course.folder, 1, course.options)
        status = other.finish()
        is_first_whole = ended(process, 300) == 0
        right = status == 2 and "trains in it now" in course.output() and is_first_whole
        yield self.row("a second run started on the same folder", course, 1, int(right), 0, f"refused with status {status}")

    def hang(self) -> Iterator[Row]:
        course = self.course("hang", UPDATES)
        course.options.append("training.timeout_seconds=10")
        process = course.start()
        wait_for_random_moment(course, process, self.draw)
        began = time.monotonic()
        kill(ranks(process)[1], signal.SIGSTOP)
        status = ended(process, 120)
        seconds = round(time.monotonic() - began)
        right = status not in (None, 0) and "did not answer within training.timeout_seconds=10" in course.output()
        reached = course.update()
        yield self.row(
            "a rank hangs (SIGSTOP), timeout_seconds=10",
            course,
            1,
            int(right),
            reached - course.saved_update(),
            f"ended after {seconds} s",
        )

    def hosts(self) -> Iterator[Row]:
        from two_hosts import two_hosts

        yield from two_hosts(self)


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path | None]:
    """A tmpfs of this size; None where it cannot be had."""
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


NAMES = ["worker", "write", "elastic", "agent", "sigterm", "disk", "damage", "loader", "image", "second", "hang", "hosts"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of a rank at random moments")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these faults only")
    parser.add_argument("--folder", type=Path, help="where to work; the default is temporary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        faults = Faults(folder, options.kills, options.seed)
        print(f"torch {torch.__version__}, Python {platform.python_version()}; two processes on a CPU, seed {options.seed}")
        print("repeated: most updates done again after a fault; lost: updates or samples missing at the end;")
        print("identical: every loss and gradient norm equal to the unbroken run's, to the last bit\n")
        print(HEAD, flush=True)
        rows = []
        for name in options.only:
            for row in getattr(faults, name)():
                rows.append(row)
                print(row, flush=True)
    failed = [row for row in rows if not row.is_identical or row.survived < row.times]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} faults survived every time")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
