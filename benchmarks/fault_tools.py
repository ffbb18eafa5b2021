"""What benchmarks/faults.py provokes faults with: a tiny world, runs on it as processes, and a look into their folders."""

import atexit
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.world import write_world

CONFIG = "projects/pixelbert/configs/mini/vqa2.yaml"
INTERVAL = 5  # updates between checkpoints
SIZES = {
    "coco_train_images": 24,
    "coco_restval_images": 6,
    "coco_val_images": 7,
    "coco_test_images": 8,
    "coco_test2015_images": 6,
    "vg_images": 20,
    "vg_coco_images": 8,
    "vg_flickr_images": 2,
    "flickr_train_images": 4,
    "flickr_val_images": 3,
    "flickr_test_images": 3,
    "nlvr2_train_sets": 2,
    "nlvr2_dev_sets": 1,
    "nlvr2_test1_sets": 1,
    "nlvr2_test2_sets": 1,
    "backbone_updates": 1,
}
SIZE_OPTIONS = [
    "training.max_epochs=null",
    "training.batch_size=8",
    "training.micro_batch_size=2",
    "training.evaluation_interval=20",
    f"training.checkpoint_interval={INTERVAL}",
    "training.log_interval=1",
    "training.num_workers=1",
    "training.num_threads=1",
    "processors.image.params.horizontal_flip=0.5",
    "processors.image.params.min_crop=0.8",
    "model_config.pixelbert.text_encoder.params.num_hidden_layers=1",
    "env.cache_dir=null",
    "training.timeout_seconds=300",
    "run_type=train_val",
]


def make_world(folder: Path) -> Path:
    """A world of the official files that takes seconds."""
    if not folder.exists():
        write_world(WorldConfig(out=str(folder), processes=1, **SIZES))
    return folder


@dataclass
class Course:
    """One course of training, interrupted and resumed as often as it takes."""

    data: Path
    folder: Path
    processes: int = 2
    options: list[str] = field(default_factory=list)
    torchrun: list[str] = field(default_factory=list)
    name_space: str | None = None  # the network namespace it starts in
    config: str = CONFIG
    before: list[str] = field(default_factory=list)  # a command that starts the command
    environment: dict[str, str] = field(default_factory=dict)
    printed: Path | None = None  # file of what it prints. None: beside its folder
    output_before: int = 0  # characters of output before it was started last

    def command(self) -> list[str]:
        arguments = ["-m", "pixelbert_plugin", f"config={self.config}", *SIZE_OPTIONS]
        arguments += ["checkpoint.resume=true"] if self.trains() else []
        arguments += [f"env.data_dir={self.data}", f"env.save_dir={self.folder}", *self.options]
        if self.processes == 1 and not self.torchrun:
            return [*self.before, sys.executable, *arguments]
        rendezvous = self.torchrun or ["--standalone", f"--nproc-per-node={self.processes}"]
        command = [sys.executable, "-m", "torch.distributed.run", *rendezvous, *arguments]
        return ["ip", "netns", "exec", self.name_space, *command] if self.name_space else command

    @property
    def output_file(self) -> Path:
        return self.printed or self.folder.parent / f"{self.folder.name}.out"

    def start(self) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        if self.name_space:
            environment["GLOO_SOCKET_IFNAME"] = "link0"
        with self.output_file.open("a") as output:
            self.output_before = len(self.output())
            process = subprocess.Popen(
                self.command(), stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        atexit.register(kill_group, process)
        return process

    def finish(self) -> int:
        """Run to the end; the exit status."""
        return self.start().wait()

    def has_begun(self, process: subprocess.Popen) -> bool:
        """Wait for the first update since the run was started; False where it ended before."""
        return wait_until(lambda: "\nupdate " in self.output()[self.output_before :], process, 300)

    def output(self) -> str:
        return self.output_file.read_text(errors="replace") if self.output_file.exists() else ""

    def records(self) -> list[dict]:
        path = self.folder / "log.jsonl"
        found = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:  # being written
                break
        return found

    def update(self) -> int:
        """The last logged update."""
        return max((record["update"] for record in self.records()), default=0)

    def losses(self) -> list[tuple]:
        return [(record["update"], record["samples"], record["loss"], record["grad_norm"]) for record in self.records()]

    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("update_*"))

    def saved_update(self) -> int:
        """The update of the newest checkpoint."""
        return max((int(path.name.removeprefix("update_")) for path in self.checkpoints()), default=0)

    def is_writing(self) -> bool:
        """Whether a checkpoint is being written just now."""
        return any((self.folder / "checkpoints").glob(".update_*"))

    def copy(self, name: str) -> "Course":
        """The same course, as far as it got, in another folder."""
        return self.copy_to(self.folder.with_name(name))

    def copy_to(self, target: Path) -> "Course":
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder, target, symlinks=True)
        return replace(self, folder=target)

    def with_options(self, *options: str) -> "Course":
        """The same folder with further options."""
        return replace(self, options=[*self.options, *options])

    def trains(self) -> bool:
        kinds = [option for option in self.options if option.startswith("run_type=")]
        return "--export" not in self.options and (not kinds or "train" in kinds[-1])

    def results(self) -> dict:
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def said(self) -> str:
        """What it printed since it was started last."""
        return self.output()[self.output_before :]


def ranks(process: subprocess.Popen) -> list[int]:
    """Process numbers of the run's ranks: the run itself, or torchrun's children."""
    children = children_of(process.pid)
    found = [
        pid
        for pid in children
        if b"pixelbert_plugin" in command_line(pid) and b"torch.distributed.run" not in command_line(pid)
    ]
    return found if b"torch.distributed.run" in command_line(process.pid) else [process.pid]


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # a thread that has ended in between
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 120) -> bool:
    """Whether the condition came true while the process lived."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return False


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(process: subprocess.Popen) -> None:
    """Nothing goes on behind a program that has failed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen, seconds: float = 90) -> int | None:
    """The exit status of the run; None, and all of it killed, where it does not end in time."""
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and group_lives(process.pid):
        time.sleep(0.02)
    return status


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_random_moment(course: Course, process: subprocess.Popen, draw: random.Random) -> bool:
    """Some time after the run has logged its first update since it was started. False where it ended before."""
    return course.has_begun(process) and not wait_until(lambda: False, process, draw.uniform(0, 1.5)) and process.poll() is None


def contents(folder: Path) -> dict[Path, bytes]:
    """Of all files but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def flip(content: bytes, place: float = 0.5) -> bytes:
    """The same with one bit flipped, at a share of its length."""
    changed = bytearray(content)
    changed[int(len(changed) * place)] ^= 1
    return bytes(changed)


def is_one_line(output: str) -> bool:
    """Whether an error was told in a line and without a traceback."""
    return output.count("\nerror: ") + output.startswith("error: ") == 1 and "Traceback" not in output


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path | None]:
    """A tmpfs of this size; None, with a word, where it cannot be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        print(f"{folder.name}: a tmpfs cannot be mounted here (needs root); left out", file=sys.stderr)
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def fill(disk: Path, leave: int = 0) -> Path:
    """Ballast that fills a disk but for `leave` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while shutil.disk_usage(disk).free > leave:
            file.write(bytes(min(1_000_000, max(4096, shutil.disk_usage(disk).free - leave))))
    return ballast
