"""The console of a run: it may go away (`| head`), or stand on a full disk, and the run goes on without it."""

import logging
import os
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)


class TolerantStream:
    """A text stream whose failures are told once, as a warning; from then on it is silent."""

    def __init__(self, stream: IO[str]):
        self._stream = stream
        self._is_silent = False

    def write(self, text: str) -> int:
        if not self._is_silent:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # a terminal of another encoding
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                self._stream.write(text.encode(encoding, errors="replace").decode(encoding))
            except (OSError, ValueError) as error:
                self._fall_silent(error)
        return len(text)

    def flush(self) -> None:
        if not self._is_silent:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fall_silent(error)

    def _fall_silent(self, error: Exception) -> None:
        self._is_silent = True
        silence(self._stream)
        reason = getattr(error, "strerror", None) or error
        logger.warning("standard output cannot be written (%s): the run goes on without it", reason)

    def __getattr__(self, name: str) -> Any:  # isatty, encoding, fileno, …
        return getattr(self._stream, name)


def make_tolerant(console: "Console") -> None:
    """Let no failure to write on the console end the run."""
    if not isinstance(console.file, TolerantStream):
        console.file = cast(IO[str], TolerantStream(console.file))  # all that it does not have itself is its stream's


def silence(stream: IO[str]) -> None:
    """Send what a stream holds, and what follows, to nowhere: else Python's last flush fails once more."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
