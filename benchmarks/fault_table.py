"""The rows of the table, and what all of them are made with: a world, courses of training, an unbroken run to compare with."""

import random
from dataclasses import dataclass
from pathlib import Path

from fault_tools import INTERVAL, Course, make_world


@dataclass
class Row:
    """A line of the table."""

    fault: str
    times: int
    survived: int
    repeated: int | None = None  # most updates done again after one fault; None: nothing was trained
    is_identical: bool | None = None  # what there is at the end, to the unbroken run's; None: there is nothing to compare
    note: str = ""

    def __str__(self) -> str:
        lost = {True: "0", False: "some", None: "-"}[self.is_identical]
        same = {True: "yes", False: "NO", None: "-"}[self.is_identical]
        repeated = "-" if self.repeated is None else self.repeated
        return f"{self.fault:<62} {self.times:>5} {self.survived:>8} {repeated:>8} {lost:>5}  {same:<9} {self.note}"

    @property
    def is_failed(self) -> bool:
        return self.is_identical is False or self.survived < self.times


HEAD = f"{'fault':<62} {'times':>5} {'survived':>8} {'repeated':>8} {'lost':>5}  identical note"


class Bench:
    """Where faults are provoked."""

    def __init__(self, folder: Path, kills: int, seed: int, updates: int):
        self.folder, self.kills, self.draw = folder, kills, random.Random(seed)
        self.updates = updates  # of a course with one fault
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

    def evaluated(self, name: str) -> Course:
        """A short run that came to its end, for rows about what follows: evaluations, exports."""
        course = self.course(name, 2 * INTERVAL, 1)  # with a checkpoint before its last
        if course.saved_update() < 2 * INTERVAL:
            assert course.finish() == 0, course.output()[-3000:]
        return course
