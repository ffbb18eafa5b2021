"""What the quick tests show on a CPU, shown on a GPU by the same functions, and runs on either.

To the last bit: where a GPU's kernels add up in an order that changes from run to run, they are told not to.
"""

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import write_config
from test_load import fast_agrees
from unit.checkpoint.test_background import is_of_the_moment, make_training
from unit.data.test_ahead import losses_are_those_of_all_ready_before
from unit.data.test_image_features import kept_and_new_are_the_same
from unit.models.test_pixelbert_read import HEADS
from unit.tasks.test_retrieval import LOST, is_that_of_one_pass
from unit.training.test_recomputation import everything_is_equal

from pixelbert_plugin import build, registry
from pixelbert_plugin.checkpoint.checkpoints import problem
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.precision.native import Bf16, Fp32

needs_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
needs_two = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")]
on_cuda = pytest.param("cuda", marks=needs_cuda)
GPU = torch.device("cuda", 0)
# the gradients of the tiny model overflow at float16's usual scale of 2^16
SCALES = {"fp16": ["precision_config.fp16.init_scale=8"], "O1": ["precision_config.apex.loss_scale=8"]}
SCALES["O2"] = SCALES["O1"]
SCALES["O3"] = ["optimizer.transformer.params.eps=1e-4"]  # which steps float16 weights
LEVELS = ("O0", "O1", "O2", "O3")
PRECISIONS = {
    **{name: [f"training.precision={name}"] for name in registry.names("precision") if name != "apex"},
    **{level: ["training.precision=apex", f"precision_config.apex.opt_level={level}"] for level in LEVELS},
}
CELLS = [  # a CPU has no TensorFloat-32, and takes long for float16
    pytest.param("cpu", "fp32"),
    pytest.param("cpu", "bf16", marks=pytest.mark.slow),
    *(pytest.param("cuda", name, marks=needs_cuda) for name in PRECISIONS),
]
SHORT = ["run_type=train", "training.max_updates=3", "training.sanity_check=false", "training.max_grad_norm=1"]


@pytest.fixture
def repeatable(monkeypatch):
    """A GPU's kernels that give the same numbers each time, where there are any; attention has none that is fused."""
    if not torch.cuda.is_available():
        yield
        return
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(build, "make_repeatable", lambda device: None)
    usual = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    kernels = torch.backends.cuda
    fused = kernels.flash_sdp_enabled(), kernels.mem_efficient_sdp_enabled(), kernels.cudnn_sdp_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    set_fused(False, False, False)
    yield
    torch.use_deterministic_algorithms(usual[0], warn_only=True)
    torch.backends.cudnn.deterministic = usual[1]
    set_fused(*fused)


def set_fused(flash, efficient, cudnn):
    torch.backends.cuda.enable_flash_sdp(flash)
    torch.backends.cuda.enable_mem_efficient_sdp(efficient)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def train(config, *options):
    assert cli.main([f"config={config}", *options]) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("repeatable")
class TestOnAGpu:
    """The functions of the quick tests."""

    def test_losses_with_one_micro_batch_ahead_are_those_of_all_made_before(self, vqa2_root):
        assert losses_are_those_of_all_ready_before(vqa2_root, GPU) == [1, 2, 2, 2, 2, 2] * 2

    def test_kept_features_are_those_computed(self, tmp_path, vqa2_root):
        found = kept_and_new_are_the_same(GPU, tmp_path / "gpu", vqa2_root)
        expected = kept_and_new_are_the_same(torch.device("cpu"), tmp_path / "cpu", vqa2_root)
        for gpu, cpu in zip(found, expected, strict=True):
            assert gpu.grid == cpu.grid and torch.equal(gpu.mask.cpu(), cpu.mask)
            torch.testing.assert_close(gpu.pixels.cpu(), cpu.pixels, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("is_read", [False, True])
    @pytest.mark.parametrize("lost", [{}, LOST])
    def test_retrievals_gradient_is_that_of_one_pass(self, lost, is_read):
        is_that_of_one_pass(GPU, lost, is_read)

    @pytest.mark.parametrize("precision", [Fp32, Bf16])
    @pytest.mark.parametrize("name", [name for name in HEADS if name != "nlvr2"])
    def test_gradient_checkpointing_changes_no_bit(self, name, precision):
        everything_is_equal(GPU, name, name == "retrieval", precision)

    def test_a_model_loaded_for_inference_alone_agrees(self, tiny_run, vqa2_root):
        fast_agrees("cuda", tiny_run, sorted((vqa2_root / "coco/val2014").iterdir()), "what color is the disc?")

    def test_a_checkpoint_is_of_the_moment_it_was_asked_for(self, tmp_path, monkeypatch):
        is_of_the_moment(GPU, make_training(tmp_path, GPU), monkeypatch)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), on_cuda])
@pytest.mark.usefixtures("repeatable")
def test_losses_of_a_run_are_those_with_nothing_made_ahead(device, tmp_path, vqa2_root, monkeypatch):
    found = []
    for name in ("ahead", "none"):
        if name == "none":
            monkeypatch.setattr("pixelbert_plugin.data.loader.one_ahead", lambda batches, ready, device: map(ready, batches))
        config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name)
        train(config, *SHORT, "training.micro_batch_size=2", f"training.device={device}", "training.precision=fp32")
        found.append([(record["loss"], record["grad_norm"]) for record in records(tmp_path / name)])
    assert len(found[0]) == 3 and found[0] == found[1]


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), on_cuda])
@pytest.mark.usefixtures("repeatable")
def test_a_run_whose_features_are_kept_goes_as_the_one_that_kept_them(device, tmp_path, vqa2_root):
    frozen, found = "model_config.pixelbert.freeze_image_encoder=true", {}
    cached = ["training.cache_features=true", f"env.cache_dir={tmp_path}/cache"]
    for name, options in (("without", []), ("new", cached), ("kept", cached)):
        config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name)
        train(config, *SHORT, frozen, f"training.device={device}", "training.precision=fp32", *options)
        found[name] = [record["loss"] for record in records(tmp_path / name)]
    assert found["kept"] == found["new"] == pytest.approx(found["without"], rel=1e-3)
    assert list((tmp_path / "cache/features").rglob("*"))


@pytest.mark.parametrize(("device", "name"), CELLS)
def test_every_precision_trains(device, name, tmp_path, vqa2_root):
    if name == "tf32" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tf32 needs compute capability 8.0")
    if device == "cuda" and name == "bf16" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    train(config, *SHORT, f"training.device={device}", *PRECISIONS[name], *SCALES.get(name, []))
    log = records(tmp_path / "run")
    assert len(log) == 3 and len({record["loss"] for record in log}) == 3
    assert all(math.isfinite(record[figure]) for record in log for figure in ("loss", "grad_norm"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=needs_two)])
def test_two_processes_save_beside_their_training_and_go_on(device, parallel, tmp_path, vqa2_root):
    """Tensors are copied from both GPUs while NCCL has gradients to exchange, and written while the training goes on."""
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    options = [f"config={config}", "training.checkpoint_interval=1", "checkpoint.max_to_keep=9", f"training.device={device}"]
    options += [f"training.parallel={parallel}", "training.precision=fp32", "run_type=train", "training.max_grad_norm=1"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pixelbert_plugin"]

    def run(*more):
        command, environment = [sys.executable, *launcher, *options, *more], {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    run("training.max_updates=5")
    unbroken = [record["loss"] for record in records(tmp_path / "run")]
    saved = sorted((tmp_path / "run/checkpoints").glob("update_*"))
    assert len(saved) == 5 and [problem(path) for path in saved] == [None] * 5
    for path in saved[2:]:
        shutil.rmtree(path)
    run("training.max_updates=5", "checkpoint.resume=true")
    found = [record["loss"] for record in records(tmp_path / "run")]
    assert len(found) == 5 and found[:2] == unbroken[:2]
    assert found == (unbroken if device == "cpu" else pytest.approx(unbroken, rel=1e-3))
