"""The errors that end a run on purpose, each with its exit status (see the README's table)."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class RunError(Exception):
    """A run that ends with one line on stderr and `exit_status`; `--debug` shows the traceback."""

    exit_status = 1
    is_told = False  # whether another process of the run prints it

    def add(self, where: str) -> None:
        """Say in the message where it happened."""
        self.args = (f"{self} ({where})",)

    def __reduce__(self) -> tuple[Callable[[str, int], "RunError"], tuple[str, int]]:
        return _told, (str(self), self.exit_status)  # on its way to another process, which only needs to end alike


def _told(message: str, exit_status: int) -> RunError:
    error = RunError(message)
    error.exit_status = exit_status
    return error


class UserError(RunError):
    """The user's input is wrong. The message gives the path or key, the value and the remedy, in one line."""

    exit_status = 2


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite; the message names the update and the samples of the batch."""

    exit_status = 3


class LostProcessError(RunError):
    """Another process of the run ended or fell silent."""

    exit_status = 4


class Stopped(RunError):
    """SIGTERM ended the run: what it had trained is saved."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again


@contextmanager
def writing(path: Path, key: str = "env.save_dir") -> Iterator[None]:
    """Turn a failure to write below `path` (full disk, no permission) into one line that names the config key."""
    try:
        yield
    except OSError as error:
        remedy = f"{REMEDIES[error.errno]} or " if error.errno in REMEDIES else ""
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); {remedy}choose another folder with {key}=PATH. "
            "Checkpoints saved before stay whole."
        ) from error


REMEDIES = {  # by what the operating system says
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space of your quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EROFS: "make the file system writable",
    errno.ENOENT: "put the folder back, which was moved or deleted meanwhile,",
    errno.ESTALE: "put the folder back, which was moved or deleted meanwhile,",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` at the end, so that a file is whole or as it was before.

    It gets the mode that the umask allows, whatever wrote it: safetensors makes files that only their owner can read.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.touch()
        mode = stat.S_IMODE(aside.stat().st_mode)
        yield aside
        aside.chmod(mode)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
