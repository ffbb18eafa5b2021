"""What the commands share: how arguments are read, and that an error is one line on stderr and an exit status."""

import argparse
import atexit
import contextlib
import difflib
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pixelbert_plugin import __version__
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.system import interrupt

MAX_LINE = 2000  # characters of an error: its head and tail are kept
MAX_TAIL = 600


class Parser(argparse.ArgumentParser):
    """Flags and key=value in any order. A wrong argument is a UserError of one line."""

    def __init__(self, prog: str, description: str, epilog: str):
        super().__init__(prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add_common(self, options: str, debug: str = "show the traceback of an error") -> None:
        """What every command takes: `options`, told by this help; --debug and --version."""
        self.add_argument("options", nargs="*", metavar="key=value", help=options)
        self.add_argument("--debug", action="store_true", help=debug)
        self.add_argument("--version", action="version", version=__version__)

    def read(self, argv: list[str]) -> argparse.Namespace:
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            self.error(f"{unknown[0]}: unknown flag{self._hint(unknown[0])}")
        return arguments

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help)")

    def _hint(self, flag: str) -> str:
        name, equals, value = flag.lstrip("-").partition("=")
        if name == "config":
            return f"; write config={value or 'PATH'}"
        if equals or "." in name:
            return f"; keys are written without dashes: {name}={value or 'VALUE'}"
        close = difflib.get_close_matches(flag, self._option_string_actions, n=1)
        return f"; did you mean {close[0]}?" if close else ""


def run_command(parser: Parser, argv: list[str] | None, run: Callable[[argparse.Namespace], int], interrupted: str) -> int:
    """The exit status of `run(arguments)`. `interrupted`: what to tell after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks × or → shows \xd7, \u2192
    return exit_status(lambda: run(parser.read(argv)), "--debug" in argv, interrupted)


def exit_status(run: Callable[[], int], debug: bool, interrupted: str) -> int:
    """The exit status of `run()`. `interrupted`: what to tell after Ctrl-C; `debug` adds the traceback of an error."""
    try:
        with interrupt.handling(SIGINT=interrupt.interrupt):
            status = run()
            _flush()
            return status
    except KeyboardInterrupt:
        return _interrupted(interrupted)
    except RunError as error:
        if debug:
            traceback.print_exc()
        if not is_told_elsewhere(error):
            rank = os.environ.get("RANK", "0")
            line = f"error: {one_line(error)}"
            _say(line if rank == "0" else f"rank {rank}: {line}")
        return error.exit_status
    except BrokenPipeError:  # the reader of the output has seen enough
        _give_up_output()
        return 0
    except Exception as error:
        if interrupt.was_interrupted():  # some packages turn it into an error of theirs while they are imported
            return _interrupted(interrupted)
        if debug:
            traceback.print_exc()
        _say(f"error: {one_line(_unexpected(error))}")
        return 1
    finally:
        interrupt.ignore_more()


def _unexpected(error: Exception) -> str:
    """What to say of an error that nobody thought of: in this program, in a plugin or in a package."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {one_line(error)} (unexpected, in {last.filename}, line {last.lineno}"
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile(
            "w", prefix="pixelbert_error_", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        told += f"; {file.name} has the traceback"
    return f"{told}; --debug shows it)"


def _interrupted(what_to_do: str) -> int:
    _say(f"interrupted; {what_to_do}")
    return interrupt.INTERRUPTED


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk under 2> is no reason for another exit status
        print(line, file=sys.stderr, flush=True)


def one_line(error: object) -> str:
    """A message in one line of at most MAX_LINE characters, without what a terminal would obey."""
    text = re.sub(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", str(error).strip())
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(text) <= MAX_LINE:
        return text
    head, tail = text[: MAX_LINE - MAX_TAIL - 50], text[-MAX_TAIL:]
    return f"{head} … ({len(text) - len(head) - len(tail):,} characters left out) … {tail}"


def tell(text: str) -> None:
    """Print what was asked for. A reader that has seen enough (`| head`) ends it quietly."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _give_up_output()
    except OSError as error:
        _give_up_output()
        raise UserError(f"the output cannot be written ({error.strerror})") from error


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # the last lines on the console are lost: nothing that a run saves
        _give_up_output()


def _give_up_output() -> None:
    """Send what is left to nowhere, so that Python does not try to write it again at its end."""
    with contextlib.suppress(OSError, ValueError):  # a test's output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(status: int) -> NoReturn:
    """End the program with this status; everything must be closed and saved.

    Once torch was used, without tearing the interpreter down: a thread of gloo's that lets go of a Python object meanwhile
    is ended by Python inside a C++ destructor, and the process aborts ("terminate called without an active exception").
    """
    if "torch" not in sys.modules:
        sys.exit(status)
    atexit._run_exitfuncs()  # log files, data-loading workers
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, it is closed, or nobody reads it
            stream.flush()
    os._exit(status)


def is_told_elsewhere(error: RunError) -> bool:
    """Whether another of torchrun's processes prints it. Before they are connected, all of a machine make the same one."""
    distributed = sys.modules.get("torch.distributed")
    is_connected = distributed is not None and distributed.is_initialized()
    return error.is_told or (not is_connected and os.environ.get("LOCAL_RANK", "0") != "0")


def split_config(options: list[str], remedy: str) -> tuple[str, list[str]]:
    """The PATH of `config=PATH`, and the other options. Raises UserError, ending in `remedy`, where it is not given once."""
    path, others = split_optional_config(options, remedy)
    if path is None:
        raise UserError(f"config=PATH is given 0 times; {remedy}")
    return path, others


def split_optional_config(options: list[str], remedy: str) -> tuple[str | None, list[str]]:
    """As `split_config`, for a command that can do without: then the PATH is None."""
    for index, option in enumerate(options):
        if "=" not in option:
            suggestion = _suggestion(option, "".join(options[index + 1 : index + 2]))
            raise UserError(f"{option!r}: not understood{suggestion}; options are given as key=value")
    paths = [option.removeprefix("config=") for option in options if option.startswith("config=")]
    if len(paths) > 1:
        raise UserError(f"config=PATH is given {len(paths)} times; {remedy}")
    return (paths[0] if paths else None), [option for option in options if not option.startswith("config=")]


def _suggestion(option: str, following: str) -> str:
    """What somebody meant who wrote an option without =."""
    key = option.strip().rstrip(":=")
    if key == "config" or (following and "=" not in following and re.fullmatch(r"[a-z_]+(\.\w+)*", key)):
        return f"; did you mean {key}={following or 'PATH'}?"
    is_file = option.lower().endswith((".yaml", ".yml")) or _is_file(option)
    return f"; did you mean config={option}?" if is_file else ""


def _is_file(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
