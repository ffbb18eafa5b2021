"""The bar of a training on a terminal: drawn twice a second at most, by a thread of its own, with a time left that settles."""

from collections import deque
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pixelbert_plugin.system.cosmetic import Cosmetic
from pixelbert_plugin.system.progress import BARS_PER_SECOND, spoken

WINDOW = 500  # updates whose mean says how long the others take


class Pace:
    """How long the updates that are left take: as long as the mean of the last ones.

    The first one after a start, which makes caches and compiles, does not count once there is another; evaluations and saving
    are no part of an update.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._is_first = True

    def note(self, seconds: float) -> None:
        """An update took so long."""
        if len(self._seconds) == 1 and self._is_first:
            self._seconds.clear()
            self._is_first = False
        self._seconds.append(seconds)

    def left(self, updates: int) -> float | None:
        """Seconds; None before the first update."""
        return updates * sum(self._seconds) / len(self._seconds) if self._seconds else None


class Bar:
    """Nothing where the console is no terminal."""

    def __init__(self, console: Console, done: int, total: int):
        self._cosmetic, self._pace, self._total = Cosmetic("the progress bar"), Pace(), total
        self._seconds: float | None = None  # of training when the last update was done
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                BarColumn(bar_width=10),  # the whole fits 80 columns
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[shown]}"),
                console=console,
                refresh_per_second=BARS_PER_SECOND,
            )
            self._task: Any = self._progress.add_task("training", total=total, completed=done, shown="", left="")

    @property
    def is_there(self) -> bool:
        return self._progress is not None

    def __enter__(self) -> "Bar":
        if self._progress is not None:
            self._cosmetic.attempt(self._progress.start)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._cosmetic.attempt(self._progress.stop)
            self._progress = None

    def advance(self, update: int, seconds: float) -> None:
        """`seconds` of training, without evaluations, until `update` was done."""
        if self._seconds is not None:
            self._pace.note(seconds - self._seconds)
        self._seconds = seconds
        left = self._pace.left(self._total - update)
        self._change(completed=update, left="" if left is None else f"{spoken(left)} left")

    def show(self, text: str) -> None:
        self._change(shown=text)

    def _change(self, **fields: Any) -> None:
        progress = self._progress
        if progress is not None:  # which draws itself
            self._cosmetic.attempt(lambda: progress.update(self._task, **fields))
