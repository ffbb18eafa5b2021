"""TensorBoard's event file. Nothing that fails here ends a run: it is told once, and left out from there on."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import RunError

logger = logging.getLogger(__name__)


class Cosmetic:
    """Work that a run can do without."""

    def __init__(self, what: str):
        self.what = what
        self.has_failed = False

    def attempt(self, work: Callable[[], Any]) -> None:
        """Do it, unless it failed before; what it raises is told as a warning, once."""
        if self.has_failed:
            return
        try:
            work()
        except RunError:  # SIGTERM, wherever the program was
            raise
        except Exception as error:
            self.has_failed = True
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            logger.warning("%s: left out from here on (%s); the run goes on", self.what, " ".join(str(reason).split())[:300])


class Board:
    """Scalars, texts and pictures for TensorBoard; `update` is its step throughout."""

    def __init__(self, folder: Path, resumed_update: int):
        self._writing = Cosmetic(f"TensorBoard's events in {folder}")
        self._drawing = Cosmetic("pictures for TensorBoard")
        self._writer: Any = None
        self._writing.attempt(lambda: self._open(folder, resumed_update))
        threading.excepthook = _quiet_writer_thread

    def _open(self, folder: Path, resumed_update: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resumed_update + 1)

    def scalars(self, values: dict[str, float], update: int) -> None:
        def write() -> None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, update)

        self._writing.attempt(write)

    def texts(self, texts: dict[str, str]) -> None:
        self._writing.attempt(lambda: [self._writer.add_text(name, text, 0) for name, text in texts.items()])

    def hparams(self, values: dict[str, Any]) -> None:
        def write() -> None:
            from torch.utils.tensorboard.summary import hparams

            for summary in hparams(values, {}):
                self._writer.file_writer.add_summary(summary)

        self._writing.attempt(write)

    def picture(self, name: str, draw: Callable[[], Any], update: int) -> None:
        """`draw` makes a figure of matplotlib's."""

        if not self._writing.has_failed:
            self._drawing.attempt(lambda: self._writer.add_figure(name, draw(), update))

    def flush(self) -> None:
        self._writing.attempt(lambda: self._writer.flush())

    def close(self) -> None:
        self._writing.attempt(lambda: self._writer.close())


def _quiet_writer_thread(error: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer thread fails on a full disk; the main thread gets that error too, and tells it in one line."""
    if type(error.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(error)
