"""kill -9 at any moment, the same command again with checkpoint.resume=true: the same losses to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_config
from fault_tools import group_lives

OPTIONS = (
    "training.max_updates=14",
    "training.checkpoint_interval=3",
    "training.evaluation_interval=5",
    "training.micro_batch_size=5",
    "training.num_workers=2",
    "training.num_threads=1",
    "processors.image.params.horizontal_flip=0.5",
    "processors.image.params.min_crop=0.8",
    "processors.image.params.color_jitter=0.3",
    "model_config.pixelbert.num_sampled_pixels=3",
    "checkpoint.resume=true",
)


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "pixelbert_plugin", f"config={config}", *OPTIONS]


def losses(folder: Path) -> list[tuple]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(record["update"], record["samples"], record["loss"], record["grad_norm"]) for record in records]


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def kill_when(config: Path, condition) -> bool:
    """Start the run in a process group of its own and SIGKILL it at the moment; False if it ended before.

    Its data-loader workers end with it.
    """
    process = subprocess.Popen(command(config), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        while not condition():
            if process.poll() is not None:
                assert process.returncode == 0, process.stderr.read().decode()
                return False
            time.sleep(0.002)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()
    for _ in range(200):
        if not group_lives(process.pid):
            return True
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("a worker outlived the run")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, vqa2_root) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    config = write_config(folder / "c.yaml", vqa2_root, folder / "run")
    done = subprocess.run(command(config), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "holds no checkpoint yet: starting anew" in done.stdout
    assert len(losses(folder / "run")) == 14
    return folder / "run"


def test_killed_runs_go_on_bit_for_bit(unbroken, tmp_path, vqa2_root):
    run = tmp_path / "run"
    config = write_config(tmp_path / "c.yaml", vqa2_root, run)
    log, checkpoints = run / "log.jsonl", run / "checkpoints"
    moments = [
        lambda: lines(log) >= 2,  # before the first checkpoint
        lambda: any(checkpoints.glob(".update_000006.*")),  # inside the writing of a checkpoint
        lambda: lines(log) >= 11,  # between two checkpoints
    ]
    killed = [kill_when(config, moment) for moment in moments]
    assert sum(killed) >= 2  # the write of a checkpoint may be over before it is seen
    done = subprocess.run(command(config), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(unbroken)
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (run, unbroken))
    del ours["training_seconds"], theirs["training_seconds"]
    assert ours == theirs
    assert not list(checkpoints.glob(".*"))


def test_resume_of_a_finished_run_only_evaluates(unbroken, vqa2_root, tmp_path):
    config = write_config(tmp_path / "c.yaml", vqa2_root, unbroken)
    before = losses(unbroken)
    done = subprocess.run(command(config), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "after update 14" in done.stdout and losses(unbroken) == before
    assert "this training has ended already, after update 14, by training.max_updates" in done.stdout + done.stderr
