"""Programs that start with torch already imported, as children of a server that forks: one import for many starts.

Each is a process of its own all the same, in a session of its own: it can be killed, has its own threads and exit status.
"""

import multiprocessing
import os
import runpy
import socket
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


def together(processes: int, program: Callable[[list], None], arguments: list, folder: Path) -> None:
    """Run `program(arguments)` in so many processes of one run, as torchrun would; fails with what they printed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        world = {"WORLD_SIZE": processes, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}  # torchrun's
        world |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        variables = {name: str(value) for name, value in world.items()} if processes > 1 else {}
        output = folder / f"output_{rank}_of_{processes}"
        started.append((start(program, arguments, output, OMP_NUM_THREADS="1", **variables), output))
    for process, _ in started:
        process.join(1200)
        process.kill()
    printed = "\n".join(output.read_text()[-4000:] for _, output in started)
    assert [process.exitcode for process, _ in started] == [0] * processes, printed


def script(arguments: list) -> None:
    """Run a file as Python would with these arguments, its path the first."""
    sys.argv = [str(argument) for argument in arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _run(program: Callable[[list[str]], None], arguments: list, output: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    program(arguments)
