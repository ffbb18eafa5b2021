"""The benchmarks' programs, in a quick form: they fail where two ways do not compute the same, never for their times."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from traced_blocks import traced_blocks

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
    assert len(rows) == 12 and all("outputs within" in row for row in rows)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same(tmp_path, monkeypatch):
    """Of the three settings one, traced; the compiler's own numbers are in test_compiled_numbers.py."""
    import steps

    monkeypatch.setattr(steps, "settings", lambda *of, settings=steps.settings: islice(settings(*of), 2, 3))
    with traced_blocks():
        rows = [str(row) for row in steps.compiled(steps.vocabulary(tmp_path), (64, 85), rounds=0)]
    assert len(rows) == 2 and rows[0].startswith("VQA step") and all("outputs within" in row for row in rows)


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


@pytest.mark.slow
def test_vilt_and_ours_run_on_the_same_batches():
    printed = output("vilt.py", "--rounds", "0", "--short-edge", "64")
    rows = printed.split("note\n")[1].splitlines()
    assert len(rows) == 5 and all("ViLT 11" in row and "ours 1" in row and row.count("GFLOP") == 2 for row in rows)


@pytest.mark.slow
def test_what_measures_a_gpu_runs_on_a_cpu_and_goes_on_where_it_was(tmp_path):
    """Every training and the scoring, each in a process of its own, small and in one precision; ResNeXt-152 in one."""
    kept = tmp_path / "kept.jsonl"
    options = ("gpu.py", "--quick", "--precisions", "bf16", "apex_O1", "--compile", "none", "--keep", kept)
    head, table, goals, hours = output(*options, "--backbones", "").split("\n\n", 3)
    assert "apex_O1: not available: " in head or "apex_O1" in table
    rows = [row for row in table.splitlines()[1:] if ", bf16" in row]
    assert [row.split(", bf16")[0] for row in rows] == [
        "pretrain",
        "vqa2",
        "nlvr2",
        "flickr30k_retrieval",
        "flickr30k_retrieval, every pair",
    ]
    assert not any(trouble in row for row in rows for trouble in ("failed", "available", "memory", "not finite")), table
    assert goals.count("goal") == 3 and hours.count("| `") == 5
    records = [json.loads(line) for line in kept.read_text().splitlines()]
    trained = [record for record in records if record["kind"] == "training" and record["precision"] == "bf16"]
    assert all(record["seconds"] > 0 and record["samples"] >= 2 and record["matmul"] > 1e9 for record in trained)
    wide, again = (output(*options, "--only", "nlvr2_x152, bf16") for _ in range(2))
    assert wide == again and "nlvr2_x152, bf16" in wide  # to the last digit of its time: the second one was kept


def test_what_gpu_py_reckons_from_its_cells():
    """Shares, hours and what a cell without memory says, by hand."""
    import gpu
    import gpu_cells

    rate = {"rate": 400e12, "matmul": 800e12, "seconds": 2.0, "precision": "bf16", "compile": "none"}
    pretraining = {"kind": "training", "experiment": "pretrain", "pairs": 4096, **rate}
    slower = {**pretraining, "precision": "fp32", "rate": 60e12, "seconds": 9.0}
    # a second for 100 images, and another for 50,000 pairs: COCO's 5,000 and 125,050,000 take 50 s and 2,501 s
    scoring = {"kind": "scoring", "experiment": "flickr30k_retrieval", **rate, "images": 100, "pairs": 50_000}
    scoring["seconds_of_images"] = 1.0
    assert list(gpu.goals([slower, pretraining, {"kind": "training", "error": "out of memory"}, scoring])) == [
        "pretrain: 50% of the measured matmul rate (bf16); goal 45%, met",
        "five million pairs: Flickr30K, 1,000 images, ResNet-50: 1.8 minutes (bf16); goal 8, met",
        "COCO, 5,000 images with 25,010 texts, ResNet-50: 42.5 minutes (bf16); goal 180, met",
    ]

    class Made:
        def figures(self, tflops):
            return ("183", "1", f"{tflops:.0f}", "40", "7")

    lines = list(gpu.full_scale([slower, pretraining], lambda name: Made()))
    assert lines[2:] == ["| `pretrain` | 183 | 1 | 400 | 40 | 7 | bf16 |"]
    cell = gpu_cells.Cell("training", "pretrain_x152", "fp32", "blocks")
    row = gpu.row(cell, {"allocated": 79.04e9, "reserved": 80e9, "error": "out of memory"}, ())
    assert row.split() == "pretrain_x152, fp32, compiled blocks 79.0 / 80.0 out of memory".split()


def test_a_cell_without_memory_says_so(monkeypatch, tmp_path):
    import gpu_cells

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(gpu_cells, "Parts", fails)
    found = gpu_cells.measure(gpu_cells.Cell("training", "vqa2", "bf16"), tmp_path, 1.0, gpu_cells.SMALL)
    assert found["error"] == "out of memory" and found["experiment"] == "vqa2"
    found = gpu_cells.measure(gpu_cells.Cell("training", "vqa2", "tf32"), tmp_path, 1.0, ["training.batch_size=0"])
    assert found["error"].startswith("not available: training.batch_size: 0 is invalid")
