"""Ctrl-C: the first asks the program to end, a second one ends it at once, with one line and nothing half written kept."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]
INTERRUPTED = 130  # exit status, as a shell gives it


def end_at_once(_signal: int, _frame: FrameType | None) -> None:
    tell("interrupted twice: ended at once; checkpoints saved before are whole")
    os._exit(INTERRUPTED)


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """The first Ctrl-C where nothing is at stake."""
    signal.signal(signal.SIGINT, end_at_once)
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    return signal.getsignal(signal.SIGINT) is end_at_once


def ignore_more() -> None:
    """After a Ctrl-C, once all is told: another one while Python ends would change the exit status."""
    if was_interrupted():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def tell(line: str) -> None:
    """One line on stderr from a signal handler, which may have interrupted a print."""
    with suppress(OSError):
        os.write(2, f"\n{line}\n".encode())


@contextmanager
def handling(**handlers: Handler) -> Iterator[None]:
    """Handle signals, by name, while this lasts. A handler that replaced itself stays; an ignored signal stays ignored."""
    former = {}
    if threading.current_thread() is threading.main_thread():  # only that one may handle signals
        for name, handler in handlers.items():
            number = signal.Signals[name]
            if name != "SIGINT" or signal.getsignal(number) is not signal.SIG_IGN:  # as a shell starts a job with &
                former[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in former.items():
            if signal.getsignal(number) is not end_at_once:
                signal.signal(number, before)
