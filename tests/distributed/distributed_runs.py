"""torchrun for the tests."""

import json
import os
import socket
import sys
from pathlib import Path

from preloaded import start
from several_runs import run_several


def environment() -> dict[str, str]:
    """One thread a process: three processes share a test machine's two cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def torchrun(processes: int, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={processes}",
        "--standalone",
        *options,
        *arguments,
    ]


def run_all(processes: int, in_float64: list[list[str]], as_they_are: list[list[str]], tmp_path: Path) -> None:
    """Run the commands one after another on so many processes; fails with what they printed."""
    runs = [{"arguments": arguments, "float64": True} for arguments in in_float64]
    runs += [{"arguments": arguments, "float64": False} for arguments in as_they_are]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        world = {"WORLD_SIZE": processes, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}  # torchrun's
        world |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        variables = {name: str(value) for name, value in world.items()} if processes > 1 else {}
        output = tmp_path / f"output_{rank}_of_{processes}"
        started.append((start(run_several, runs, output, OMP_NUM_THREADS="1", **variables), output))
    for process, _ in started:
        process.join(1200)
        process.kill()
    printed = "\n".join(output.read_text()[-4000:] for _, output in started)
    assert [process.exitcode for process, _ in started] == [0] * processes, printed


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder)]


def results(folder: Path) -> dict:
    content = json.loads((folder / "results.json").read_text())
    content.pop("training_seconds", None)
    return content
