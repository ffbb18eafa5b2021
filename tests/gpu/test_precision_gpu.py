"""Precisions, Apex and several processes on GPUs; each skipped, with the reason, where the machine lacks what it needs."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import write_config

from pixelbert_plugin import cli, nvidia_apex, registry

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

STEADY = [
    "training.max_updates=8",
    "model_config.pixelbert.text_encoder.params.dropout=0",
    "model_config.pixelbert.text_encoder.params.attention_dropout=0",
    "optimizer.transformer.params.eps=1e-4",  # O3 refuses what is 0 in float16
    "training.max_grad_norm=5",
]
# name → options, and how far each logged loss may be from fp32's (relative)
PRECISIONS = {
    "tf32": (["training.precision=tf32"], 2e-2),
    "bf16": (["training.precision=bf16"], 1e-1),
    "fp16": (["training.precision=fp16"], 1e-1),
    **{
        level: (["training.precision=apex", f"precision_config.apex.opt_level={level}"], bound)
        for level, bound in (("O0", 1e-3), ("O1", 1e-1), ("O2", 1e-1), ("O3", 3e-1))
    },
}


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def train(tmp_path, root, name, *options):
    config = write_config(tmp_path / f"{name}.yaml", root, tmp_path / name)
    assert cli.main([f"config={config}", *STEADY, "training.device=cuda", *options]) == 0
    return losses(tmp_path / name)


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_precision_agrees_with_fp32(tmp_path, vqa2_root, name):
    options, bound = PRECISIONS[name]
    if name == "tf32" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tf32 needs compute capability 8.0")
    native = ["precision_config.apex.backend=native"] if name.startswith("O") else []
    exact = train(tmp_path, vqa2_root, "fp32", "training.precision=fp32")
    found = train(tmp_path, vqa2_root, name, *options, *native)
    assert found == pytest.approx(exact, rel=bound) and found[-1] < found[0]


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
def test_real_apex_agrees_with_fp32_and_resumes(tmp_path, vqa2_root, level):
    """In a process of its own: O1 patches torch's functions for good."""
    if reason := nvidia_apex.why_no_amp("cuda"):
        pytest.skip(reason)
    exact = train(tmp_path, vqa2_root, "fp32", "training.precision=fp32")
    config = write_config(tmp_path / "apex.yaml", vqa2_root, tmp_path / "apex")
    options = ["training.precision=apex", f"precision_config.apex.opt_level={level}", "precision_config.apex.backend=apex"]
    for extra in (["training.max_updates=4"], ["checkpoint.resume=true"]):
        command = [sys.executable, "-m", "pixelbert_plugin", f"config={config}", *STEADY, *options, *extra]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "apex") == pytest.approx(exact, rel=PRECISIONS[level][1] + 2e-2)
    assert "apex" in json.loads((tmp_path / "apex/log.jsonl").read_text().splitlines()[0])["precision"]


@pytest.mark.parametrize(("fused", "plain"), [("fused_adam", "adamw"), ("fused_sgd", "sgd")])
def test_fused_optimizers_equal_torchs(fused, plain):
    if reason := nvidia_apex.why_no_kernels("amp_C", "cuda"):
        pytest.skip(reason)
    torch.manual_seed(0)
    start = torch.randn(64, 32)
    found = []
    for name in (fused, plain):
        weight = torch.nn.Parameter(start.clone().cuda())
        optimizer = registry.build("optimizer", name, {"lr": 0.01}, "o", named_parameters=[("w", weight)])
        for step in range(5):
            weight.grad = (start * (step - 1.5)).cuda()
            optimizer.step()
        found.append(weight.detach())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("norm", ["sync", "frozen"])
def test_two_gpus_agree_with_one(tmp_path, vqa2_root, parallel, norm):
    options = [
        f"model_config.pixelbert.image_encoder.params.norm={norm}",
        "training.precision=fp32",
        "optimizer.cnn.params.lr=1e-4",
    ]
    one = train(tmp_path, vqa2_root, "one", *options)
    config = write_config(tmp_path / "two.yaml", vqa2_root, tmp_path / "two")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pixelbert_plugin"]
    command = [*run, f"config={config}", *STEADY, *options, f"training.parallel={parallel}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # a sync norm counts each batch's own padding, which differs with the share
    assert losses(tmp_path / "two") == pytest.approx(one, rel=1e-3 if norm == "frozen" else 5e-2)
