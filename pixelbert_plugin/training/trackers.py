"""The trackers of a run, each of which may fail by itself: it is told once, and asked nothing more."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.interfaces import Tracker
from pixelbert_plugin.system.cosmetic import Cosmetic
from pixelbert_plugin.types import TrackedRun

T = TypeVar("T")


def build_trackers(config: RunConfig) -> "Trackers":
    """Those that `trackers` names. Raises UserError for one that cannot be built, as where its package is not installed."""
    return Trackers(
        cast(Tracker, registry.build("tracker", name, config.tracker_config.get(name), f"tracker_config.{name}"))
        for name in config.trackers
    )


class Trackers:
    """Tells each of them; a figure is drawn once for all."""

    def __init__(self, trackers: Iterable[Tracker] = ()):
        self._trackers = [(each, Cosmetic(f"tracker {registry.place_of(each).name!r}")) for each in trackers]
        self._drawing = Cosmetic("pictures for trackers")
        self._finding = Cosmetic("examples for trackers")

    def begin(self, run: TrackedRun) -> None:
        self._tell(lambda tracker: tracker.begin(run))

    def scalars(self, values: dict[str, float], update: int) -> None:
        self._tell(lambda tracker: tracker.scalars(values, update))

    def texts(self, find: Callable[[], dict[str, str]], update: int) -> None:
        """`find` makes the texts by name; those that are empty are left out."""
        texts = {name: text for each in self.found(lambda: [find()]) for name, text in each.items() if text}
        if texts:
            self._tell(lambda tracker: tracker.texts(texts, update))

    def found(self, find: Callable[[], list[T]]) -> list[T]:
        """What is to be shown; [] where nobody is there to see it, or where it cannot be found, which is told once."""
        found: list[T] = []
        if self.are_there:
            self._finding.attempt(lambda: found.extend(find()))
        return found

    def picture(self, name: str, draw: Callable[[], Any], update: int) -> None:
        """`draw` makes a figure of matplotlib's."""
        figures: list[Any] = []
        if self.are_there:
            self._drawing.attempt(lambda: figures.append(draw()))
        for figure in figures:
            self._tell(lambda tracker: tracker.picture(name, figure, update))  # noqa: B023  # called at once

    def final(self, metrics: dict[str, float]) -> None:
        self._tell(lambda tracker: tracker.final(metrics))

    def flush(self) -> None:
        self._tell(lambda tracker: tracker.flush())

    def close(self) -> None:
        """Those that failed too: what they hold open is let go."""
        for tracker, telling in self._trackers:
            if telling.has_failed:  # which was told
                with contextlib.suppress(Exception):
                    tracker.close()
            telling.attempt(tracker.close)

    @property
    def are_there(self) -> bool:
        return any(not telling.has_failed for _, telling in self._trackers)

    def _tell(self, work: Callable[[Tracker], Any]) -> None:
        for tracker, telling in self._trackers:
            telling.attempt(lambda: work(tracker))  # noqa: B023  # called at once
