"""kill -9 at any moment, the same command again with checkpoint.resume=true: the same losses to the last bit."""

import json
import os
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from conftest import write_config
from fault_tools import group_lives
from preloaded import pixelbert_run, start

OPTIONS = (
    "training.max_updates=6",
    "training.checkpoint_interval=2",
    "training.evaluation_interval=3",
    "training.micro_batch_size=5",
    "training.num_workers=2",
    "training.num_threads=1",
    "processors.image.params.horizontal_flip=0.5",
    "processors.image.params.min_crop=0.8",
    "processors.image.params.color_jitter=0.3",
    "model_config.pixelbert.num_sampled_pixels=3",
    "checkpoint.resume=true",
)


def begin(config: Path) -> ForkServerProcess:
    return start(pixelbert_run, [f"config={config}", *OPTIONS], config.with_name("output"), OMP_NUM_THREADS="1")


def finish(config: Path) -> str:
    """Run to the end; returns what was printed by this run and those before it with the same configuration."""
    process = begin(config)
    process.join()
    printed = config.with_name("output").read_text()
    assert process.exitcode == 0, printed
    return printed


def losses(folder: Path) -> list[tuple]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(record["update"], record["samples"], record["loss"], record["grad_norm"]) for record in records]


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def kill_when(config: Path, condition) -> bool:
    """Start the run in a process group of its own and SIGKILL it at the moment; False if it ended before.

    Its data-loader workers end with it.
    """
    process = begin(config)
    try:
        while not condition():
            if not process.is_alive():
                assert process.exitcode == 0, config.with_name("output").read_text()
                return False
            time.sleep(0.002)
    finally:
        process.kill()
        process.join()
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
    assert "holds no checkpoint yet: starting anew" in finish(config)
    assert len(losses(folder / "run")) == 6
    return folder / "run"


def test_killed_runs_go_on_bit_for_bit(unbroken, tmp_path, vqa2_root):
    run = tmp_path / "run"
    config = write_config(tmp_path / "c.yaml", vqa2_root, run)
    log, checkpoints = run / "log.jsonl", run / "checkpoints"
    moments = [
        lambda: lines(log) >= 1,  # before the first checkpoint
        lambda: any(checkpoints.glob(".update_000004.*")),  # inside the writing of a checkpoint
        lambda: lines(log) >= 5,  # between two checkpoints
    ]
    killed = [kill_when(config, moment) for moment in moments]
    assert sum(killed) >= 2  # the write of a checkpoint may be over before it is seen
    finish(config)
    assert losses(run) == losses(unbroken)
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (run, unbroken))
    del ours["training_seconds"], theirs["training_seconds"]
    assert ours == theirs
    assert not list(checkpoints.glob(".*"))


def test_resume_of_a_finished_run_only_evaluates(unbroken, vqa2_root, tmp_path):
    config = write_config(tmp_path / "c.yaml", vqa2_root, unbroken)
    before = losses(unbroken)
    printed = finish(config)
    assert "after update 6" in printed and losses(unbroken) == before
    assert "this training has ended already, after update 6, by training.max_updates" in printed
