"""Work that a run can do without: pictures, events, lines on a console. What fails is told once, and ends nothing."""

import logging
from collections.abc import Callable
from typing import Any

from pixelbert_plugin.errors import RunError, UserError

logger = logging.getLogger(__name__)


class Cosmetic:
    """Does work of one kind until it fails, and none from there on."""

    def __init__(self, what: str):
        self.what = what
        self.has_failed = False

    def attempt(self, work: Callable[[], Any]) -> None:
        """Do it, unless it failed before; what it raises is told as a warning, once."""
        if self.has_failed:
            return
        try:
            work()
        except Exception as error:
            if isinstance(error, RunError) and not isinstance(error, UserError):
                raise  # SIGTERM, wherever the program was
            self.has_failed = True
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            logger.warning("%s: left out from here on (%s); the run goes on", self.what, " ".join(str(reason).split())[:300])
