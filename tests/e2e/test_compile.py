"""training.compile=blocks on a tiny VQA 2.0, by torch's own compiler: what a run says, saves and goes on with."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import write_config
from distributed.several_runs import all_in_float64
from safetensors.numpy import load_file
from test_run import run
from traced_blocks import traced_blocks

from pixelbert_plugin import load

pytestmark = pytest.mark.slow
COMPILED = (
    "training.compile=blocks",
    "training.num_threads=1",
    "model_config.pixelbert.num_sampled_pixels=3",
    "model_config.pixelbert.freeze_image_encoder=true",  # a third of the time, which is the compiler's
)
LONG = ("training.max_updates=6", "training.checkpoint_interval=2", "checkpoint.max_to_keep=9")
STILL = [f"model_config.pixelbert.text_encoder.params.{name}=0" for name in ("dropout", "attention_dropout")]


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def numbers(folder):
    return [(record["loss"], record["grad_norm"]) for record in records(folder)]


def results(folder):
    found = json.loads((folder / "results.json").read_text())
    found.pop("training_seconds", None)
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, vqa2_root):
    """A run of six updates with dropout, and what it printed. The first epoch ends with a smaller update."""
    folder = tmp_path_factory.mktemp("compiled")
    config = write_config(folder / "c.yaml", vqa2_root, folder / "run")
    command = [sys.executable, "-m", "pixelbert_plugin", f"config={config}", *COMPILED, *LONG]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run", done.stdout + done.stderr


def test_a_run_says_how_often_it_compiled(compiled):
    folder, printed = compiled
    counts = [record["compilations"] for record in records(folder)]
    assert counts == sorted(counts) and counts[0] > 0 and counts[-1] < 60
    assert f"training.compile: {counts[-1]} compilations for " in printed and "cannot be compiled" not in printed


def test_it_is_reproducible_and_goes_on_bit_for_bit(compiled, tmp_path, vqa2_root, monkeypatch):
    """From update 4, whose next batch is of another size than update 1's; with a cache of compiled code of its own."""
    folder, _ = compiled
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "run", symlinks=True)
    for path in (tmp_path / "run/checkpoints").iterdir():
        if path.name not in ("update_000002", "update_000004"):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
    command = [sys.executable, "-m", "pixelbert_plugin", f"config={config}", *COMPILED, *LONG, "checkpoint.resume=true"]
    subprocess.run(command, check=True, capture_output=True)
    assert numbers(tmp_path / "run") == numbers(folder) and len(numbers(folder)) == 6
    assert results(tmp_path / "run") == results(folder)


def test_checkpoints_are_the_same_files_as_without(compiled, tmp_path, vqa2_root):
    """An uncompiled run evaluates it to the same, resumes it, and has the same names in its own; `load` reads it."""
    folder, _ = compiled
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "run", symlinks=True)
    usual = [option for option in COMPILED if "compile" not in option]
    assert run(f"config={config}", *usual, "run_type=val") == 0
    assert results(tmp_path / "run") == results(folder)
    assert run(f"config={config}", *usual, "training.max_updates=7", "checkpoint.resume=true") == 0
    six, seven = (load_file(next((tmp_path / f"run/checkpoints/update_00000{n}").glob("*.safetensors"))) for n in (6, 7))
    assert six.keys() == seven.keys() and not any("_orig_mod" in name for name in six)
    assert "compilations" not in records(tmp_path / "run")[-1] and records(tmp_path / "run")[-1]["update"] == 7
    assert load(folder).task.heads().keys() == {"answers"}


def test_losses_are_those_of_an_uncompiled_run(tmp_path, vqa2_root):
    """Traced, in float64. The whole model trained, recomputed in the backward pass, without dropout; over four updates, at
    rates that make a thousand times as much of rounding: at the CNN's usual ones the last digits become the first in three."""
    options = [*STILL, "optimizer.cnn.params.lr=1e-6", "optimizer.transformer.params={lr: 1e-4, eps: 1e-3}"]
    options += ["training.gradient_checkpointing=true", "training.num_threads=1", "run_type=train"]
    found = []
    for name in ("none", "blocks"):
        config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name)
        with all_in_float64(True), traced_blocks():
            assert run(f"config={config}", *options, f"training.compile={name}") == 0
        found.append([value for pair in numbers(tmp_path / name) for value in pair])
    assert found[1] == pytest.approx(found[0], rel=1e-9) and len(found[0]) == 8
    assert found[0][6] != pytest.approx(found[0][0], rel=1e-2)  # it did move
    assert records(tmp_path / "blocks")[-1]["compilations"] > 0


def test_without_a_compiler_one_line_says_so(tmp_path, vqa2_root):
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "pixelbert_plugin", f"config={config}", *COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = next(line for line in done.stderr.splitlines() if "training.compile" in line)
    assert "torch.compile does not work here" in line and "apt-get install g++" in line
    assert not (tmp_path / "run/log.jsonl").exists()
