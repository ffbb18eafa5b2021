"""Processes that die while they train together: the run goes on as if nothing had happened. benchmarks/faults.py has more."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fault_tools import Course, ended, kill, make_world, ranks, wait_until

from pixelbert_plugin.checkpoint.checkpoints import problem

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
UPDATES = 16


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world") / "mini")


def course(world, folder, processes=2, *options, torchrun=()):
    return Course(world, folder, processes, [f"training.max_updates={UPDATES}", *options], list(torchrun))


@pytest.fixture(scope="module")
def unbroken(world, tmp_path_factory) -> list[tuple]:
    run = course(world, tmp_path_factory.mktemp("unbroken") / "run")
    assert run.finish() == 0, run.output()[-3000:]
    assert len(run.losses()) == UPDATES
    return run.losses()


@pytest.mark.slow
def test_a_killed_rank_a_stop_and_a_second_run(world, unbroken, tmp_path):
    run = course(world, tmp_path / "run")
    process = run.start()
    assert wait_until(lambda: run.update() >= 7 and run.saved_update() >= 5, process)  # it is written meanwhile
    kill(ranks(process)[1])
    assert ended(process) not in (0, None) and run.saved_update() in (5, 10) and problem(run.checkpoints()[-1]) is None
    assert "checkpoint.resume=true goes on from the last checkpoint" in run.output()

    process = run.start()
    assert run.has_begun(process)  # and trains: its log has what the one before it wrote
    pids = ranks(process)
    for pid in pids:
        kill(pid, signal.SIGSTOP)  # so that it does not end while the second starts
    second = course(world, run.folder, 1)
    assert second.finish() == 2 and "trains in it now" in run.output()
    for pid in pids:
        kill(pid, signal.SIGCONT)
    process.terminate()  # torchrun hands it on
    assert ended(process) not in (0, None)
    assert f"stopped by SIGTERM after update {run.update()}, which is saved" in run.output()
    assert run.saved_update() == run.update() < UPDATES

    assert run.finish() == 0
    assert run.losses() == unbroken


@pytest.mark.slow
def test_sigterm_ends_with_status_75(world, tmp_path):
    run = course(world, tmp_path / "run", 1)
    process = run.start()
    assert wait_until(lambda: run.update() >= 3, process)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 75 and run.saved_update() == run.update() < UPDATES


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank_and_the_run_resumes_without_a_hand(world, unbroken, tmp_path):
    run = course(
        world,
        tmp_path / "run",
        2,
        "checkpoint.resume=false",
        torchrun=["--standalone", "--nproc-per-node=2", "--max-restarts=2"],
    )
    process = run.start()
    assert wait_until(lambda: run.update() >= 7 and run.saved_update() >= 5, process)  # it is written meanwhile
    kill(ranks(process)[0])
    assert ended(process, 200) == 0, run.output()[-3000:]
    assert "resuming from" in run.output() and run.losses() == unbroken


@pytest.mark.slow
def test_the_program_that_provokes_faults(tmp_path):
    """A shortened table, without the faults that other tests provoke."""
    faults = ["disk", "hang"]
    command = [sys.executable, BENCHMARKS / "faults.py", "--updates", "16", "--only", *faults, "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    print(done.stdout)
