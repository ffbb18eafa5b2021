"""Programs that start with torch already imported, as children of a server that forks: one import for many starts.

Each is a process of its own all the same, in a session of its own: it can be killed, has its own threads and exit status.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "pixelbert_plugin.run",
        "pixelbert_plugin.encoders.resnet",
        "transformers.models.bert.modeling_bert",
        "torch.utils.tensorboard",
        "matplotlib.figure",
    ]
)


def start(program: Callable[[list[str]], None], arguments: list, output: Path, **environment: str) -> ForkServerProcess:
    """Start `program(arguments)`, a function of a module; what it prints goes to `output`."""
    process = _context.Process(target=_run, args=(program, arguments, str(output), environment), daemon=False)
    process.start()
    return process


def pixelbert_run(arguments: list) -> None:
    from pixelbert_plugin.commands import run as cli
    from pixelbert_plugin.commands.command import leave

    leave(cli.main(arguments))


def _run(program: Callable[[list[str]], None], arguments: list, output: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    program(arguments)
