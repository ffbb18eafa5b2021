"""SIGTERM, as a cluster's scheduler or torchrun sends it before it kills, and Ctrl-C: a training saves a checkpoint and ends,
with 75 or 130. A second Ctrl-C ends it at once.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pixelbert_plugin.errors import Stopped
from pixelbert_plugin.system import interrupt


class StopSignal:
    """Ends the run at once while nothing is at stake; while training, only notes the signal for the loop to see."""

    def __init__(self) -> None:
        self.is_set = False
        self._signal: int | None = None
        self._is_deferred = False
        self._process = os.getpid()

    @contextmanager
    def handled(self) -> Iterator["StopSignal"]:
        """Handle both signals while this lasts. Outside `deferred` SIGTERM raises Stopped, from wherever the program is, and
        Ctrl-C KeyboardInterrupt."""
        former = sys.unraisablehook
        sys.unraisablehook = lambda unraisable: self._is_ours(unraisable.exc_value) or former(unraisable)
        try:
            with interrupt.handling(SIGTERM=self._handle, SIGINT=self._handle):
                yield self
        finally:
            sys.unraisablehook = former

    def _is_ours(self, error: BaseException | None) -> bool:
        """Whether Python dropped what `_handle` raised, as in the midst of a fork: `is_set` remains, and is seen later."""
        return self.is_set and isinstance(error, KeyboardInterrupt | Stopped)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While this lasts, a signal only sets `is_set`."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def stopped(self, what_is_saved: str, is_told: bool = False) -> Stopped:
        """The error that ends the run by the signal that came here, or to another process, which `is_told` elsewhere."""
        is_interrupt = self._signal == signal.SIGINT
        names: dict[int | None, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
        name = names.get(self._signal, "a signal to another process")
        error = Stopped(f"stopped by {name} {what_is_saved}; checkpoint.resume=true goes on")
        error.is_told = is_told
        error.exit_status = interrupt.INTERRUPTED if is_interrupt else Stopped.exit_status
        return error

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data-loader worker that was just forked: it ends with its parent
            return
        self.is_set, self._signal = True, number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, interrupt.end_at_once)
        if self._is_deferred:
            if number == signal.SIGINT:
                interrupt.tell("Ctrl-C: a checkpoint is saved after this update, then the run ends (again: at once, unsaved)")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Stopped("stopped by SIGTERM; checkpoint.resume=true goes on from the last checkpoint, if there is one")
