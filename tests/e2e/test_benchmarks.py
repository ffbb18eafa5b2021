"""The benchmarks' programs, in a quick form: they fail where two ways do not compute the same, never for their times."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def output(program: str, *options) -> str:
    """What a program prints; fails with it where the program does."""
    done = subprocess.run([sys.executable, BENCHMARKS / program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_naive_way_and_ours_compute_the_same():
    printed = output("steps.py", "--rounds", "0", "--short-edge", "64")
    rows = printed.split("note\n")[1].splitlines()
    assert len(rows) == 11 and all("outputs within" in row for row in rows)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same():
    printed = output("steps.py", "--rounds", "0", "--short-edge", "64", "--only", "compiled")
    rows = printed.split("note\n")[1].splitlines()
    assert len(rows) == 6 and all("outputs within" in row for row in rows) and sum("compiled  " in row for row in rows) >= 3


@pytest.mark.slow
def test_both_ways_of_a_checkpoint_hold_the_same():
    printed = output("checkpoint.py", "--rounds", "1", "--hidden-size", "64")
    assert printed.count("tensors, equal") == 2


@pytest.mark.slow
def test_what_is_measured_before_update_1_finds_the_same_each_time():
    """Beside itself, which must find the same with a cache of its own."""
    printed = output("before_update_1.py", "--scale", "0.002", "--rounds", "1", "--beside", BENCHMARKS.parent)
    assert "pre-training: " in printed and printed.count("all of it") == 2 and "question priors" in printed


@pytest.mark.slow
def test_the_input_paths_give_the_same_images():
    printed = output("input_path.py", "--rounds", "1", "--images", "8")
    assert printed.count("outputs within") == 2


@pytest.mark.slow
def test_little_of_a_batch_is_padding():
    printed = output("padding.py", "--images", "1000")
    row = next(line for line in printed.splitlines() if line.startswith("pre-training"))
    pixels, _, both = map(float, row.split()[1:])
    assert 1 <= pixels < 1.02 and 1 < both < 1.08  # of 5,000 images 1.05: the more, the more of like length


@pytest.mark.slow
def test_what_recomputation_keeps_is_less_and_outputs_agree():
    printed = output("memory.py", "--rounds", "0", "--short-edge", "64")
    assert printed.count("outputs within") == 2 and printed.count("ours, checkpointing") == 2
