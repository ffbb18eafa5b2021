"""SIGTERM, as a cluster's scheduler or torchrun sends it before it kills: the run saves a checkpoint and ends with 75."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pixelbert_plugin.errors import Stopped


class StopSignal:
    """Ends the run at once while nothing is at stake; while training, only notes the signal for the loop to see."""

    def __init__(self):
        self.is_set = False
        self._is_deferred = False

    @contextmanager
    def handled(self) -> Iterator["StopSignal"]:
        """Handle SIGTERM while this lasts. Raises Stopped, from wherever the program is, outside `deferred`."""
        if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
            yield self
            return
        former = signal.signal(signal.SIGTERM, self._handle)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, former)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While this lasts, SIGTERM sets `is_set`."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_set = True
        if not self._is_deferred:
            raise Stopped("stopped by SIGTERM; checkpoint.resume=true goes on from the last checkpoint, if there is one")
