"""How far a long evaluation is and how long it will take: a bar on a terminal, elsewhere a line now and then."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FIRST_SECONDS = 5.0  # until the first line: what is over sooner needs none
LINE_SECONDS = 30.0  # between lines
BARS_PER_SECOND = 2


class NoProgress:
    """Tells nothing: in processes other than the main one, and where nobody asked."""

    def begin(self, total: int) -> None:
        """So many steps will be made."""

    def advance(self, steps: int) -> None:
        """So many more were made."""

    def __enter__(self) -> "NoProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class TimeLeft(NoProgress):
    """Tells share and time left. `has_bar`: no other bar is on the console now. A console that fails ends nothing."""

    def __init__(self, console: Console, what: str, has_bar: bool):
        self.console, self.what = console, what
        self._bar: Any = None
        if has_bar and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(compact=True),
                console=console,
                refresh_per_second=BARS_PER_SECOND,
            )

    def begin(self, total: int) -> None:
        self.total, self.done, self.began = total, 0, time.monotonic()
        self._next_line = self.began + FIRST_SECONDS
        if self._bar is not None:
            self._task = self._bar.add_task(self.what, total=total)
            self._quietly(self._bar.start)

    def advance(self, steps: int) -> None:
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)  # drawn by a thread of its own
            return
        now = time.monotonic()
        if now >= self._next_line and self.done < self.total:
            self._next_line = now + LINE_SECONDS
            left = (now - self.began) * (self.total - self.done) / self.done
            line = f"{self.what}: {100 * self.done / self.total:.1f} % after {spoken(now - self.began)}, {spoken(left)} left"
            self._quietly(lambda: self.console.out(line, highlight=False))

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._quietly(self._bar.stop)
            self._bar = None

    def _quietly(self, tell: Any) -> None:
        try:
            tell()
        except (OSError, ValueError):  # a closed pipe, a full disk, a closed file
            self._bar, self._next_line = None, float("inf")


def spoken(seconds: float) -> str:
    """A duration in two figures or so: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
