"""Precisions on a GPU, against fp32 on the same GPU; what is missing (CUDA, real Apex, a second GPU) is the skip's reason."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import write_config
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.precision.apex import nvidia as nvidia_apex

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

UPDATES = 6
STILL = [
    f"training.max_updates={UPDATES}",
    "training.device=cuda",
    "model_config.pixelbert.text_encoder.params.dropout=0",
    "model_config.pixelbert.text_encoder.params.attention_dropout=0",
    "training.max_grad_norm=1",
    "optimizer.cnn.params.lr=1e-3",  # at high rates training itself carries every rounding on
    "optimizer.transformer.params.eps=1e-4",  # 1e-8 is 0 in float16, which O3 steps
]
APEX = ["training.precision=apex", "precision_config.apex.backend=native"]
# the gradients of this tiny model, of norms near 700, overflow at 2^16: with 8 every precision makes all its updates
SCALE = "precision_config.apex.loss_scale=8"
CASES = [  # name, options, relative bound on each of the losses; float16 has 11 significant bits, bfloat16 has 8
    ("tf32", ["training.precision=tf32"], 1e-2),
    ("bf16", ["training.precision=bf16"], 1e-1),
    ("fp16", ["training.precision=fp16", "precision_config.fp16.init_scale=8"], 3e-2),
    ("O0", [*APEX, "precision_config.apex.opt_level=O0"], 1e-3),
    ("O1", [*APEX, "precision_config.apex.opt_level=O1", SCALE], 3e-2),
    ("O2", [*APEX, "precision_config.apex.opt_level=O2", SCALE], 3e-2),
    ("O3", [*APEX, "precision_config.apex.opt_level=O3"], 2e-1),  # weights and momentum in float16
]


def train(tmp_path, vqa2_root, name, options):
    """The log's records of a run on the tiny VQA 2.0."""
    config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name)
    assert cli.main([f"config={config}", *STILL, *options]) == 0
    return records(tmp_path / name)


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def fp32_losses(tmp_path_factory, vqa2_root):
    log = train(tmp_path_factory.mktemp("fp32"), vqa2_root, "fp32", ["training.precision=fp32"])
    losses = [record["loss"] for record in log]
    assert len(losses) == UPDATES and losses[-1] < losses[0]  # it learns: agreement is not agreement of what stands still
    return losses


@pytest.mark.parametrize(("name", "options", "bound"), CASES, ids=[case[0] for case in CASES])
def test_training_agrees_with_fp32(tmp_path, vqa2_root, fp32_losses, name, options, bound):
    if name == "tf32" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tf32 needs compute capability 8.0")
    if name == "bf16" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    log = train(tmp_path, vqa2_root, name, options)
    assert [record["loss"] for record in log] == pytest.approx(fp32_losses, rel=bound)
    assert all(record["grad_norm"] is not None for record in log)
    used = json.loads((tmp_path / name / f"checkpoints/update_{UPDATES:06d}/state.json").read_text())["precision"]["used"]
    assert used.get("opt_level", used["precision"]) == name and used["backend"] == "native"
    assert {record["precision"] for record in log} == {" ".join(used.values())}


def test_o3_with_an_eps_that_float16_does_not_hold_is_refused(tmp_path, vqa2_root, capsys):
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    options = [*STILL, *APEX, "precision_config.apex.opt_level=O3", "optimizer.transformer.params.eps=1e-8"]
    assert cli.main([f"config={config}", *options]) == 2
    assert "optimizer.transformer.params.eps: 1e-08 is 0 in float16" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
def test_apex_itself_agrees_with_the_native_level(tmp_path, vqa2_root, level):
    """Each in a process of its own: amp is initialized once in a process, and O1 patches torch."""
    reason = nvidia_apex.why_no_amp("cuda")
    if reason is not None:
        pytest.skip(reason)
    losses = {}
    for backend in ("apex", "native"):
        config = write_config(tmp_path / f"{backend}.yaml", vqa2_root, tmp_path / backend)
        options = [*STILL, "training.precision=apex", f"precision_config.apex.opt_level={level}"]
        options += [SCALE] if level in ("O1", "O2") else []
        command = [sys.executable, "-m", "pixelbert_plugin", f"config={config}", *options]
        subprocess.run([*command, f"precision_config.apex.backend={backend}"], check=True, timeout=600)
        log = records(tmp_path / backend)
        assert {record["precision"].split()[:3][-1] for record in log} == {backend}
        losses[backend] = [record["loss"] for record in log]
    assert losses["apex"] == pytest.approx(losses["native"], rel=2e-1 if level == "O3" else 3e-2)


def test_fused_adam_steps_as_torchs_adamw():
    reason = nvidia_apex.why_no_kernels("amp_C", "cuda")
    if reason is not None:
        pytest.skip(reason)
    draw = torch.Generator().manual_seed(1)
    values = [torch.randn(size, generator=draw) for size in ((40, 30), (30,))]
    options, groups = {"lr": 0.01, "weight_decay": 0.1}, []
    for name in ("fused_adam", "adamw"):
        held = [(str(index), nn.Parameter(value.cuda())) for index, value in enumerate(values)]
        groups.append((held, registry.build("optimizer", name, options, "o", named_parameters=held)))
    assert type(groups[0][1]).__name__ == "FusedAdam"
    for _ in range(10):
        gradients = [torch.randn(value.shape, generator=draw).cuda() for value in values]
        for held, optimizer in groups:
            for (_, parameter), gradient in zip(held, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for (_, ours), (_, theirs), start in zip(groups[0][0], groups[1][0], values, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert (ours.cpu() - start).abs().min() > 1e-3


# precision, norm, relative bound; `sync` counts each process's own padding, which differs with its share of the batch
TOGETHER = [("fp32", "frozen", 1e-3), ("fp32", "sync", 5e-2), ("bf16", "frozen", 1e-1), ("fp16", "frozen", 3e-2)]
TOGETHER += [("O1", "frozen", 3e-2), ("O2", "frozen", 3e-2)]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize(("precision", "norm", "bound"), TOGETHER)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_gpus_agree_with_one(tmp_path, vqa2_root, parallel, precision, norm, bound):
    if parallel == "fsdp" and precision in ("O1", "O2"):
        pytest.skip("fsdp refuses Apex's levels")
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    by_level = [*APEX, f"precision_config.apex.opt_level={precision}", SCALE]
    options = by_level if precision in ("O1", "O2") else [f"training.precision={precision}"]
    options += ["precision_config.fp16.init_scale=8"] if precision == "fp16" else []
    losses = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        config = write_config(tmp_path / f"{processes}.yaml", vqa2_root, folder)
        chosen = [*STILL, *options, f"model_config.pixelbert.image_encoder.params.norm={norm}"]
        chosen += [f"training.parallel={parallel}"] if processes == 2 else []
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "pixelbert_plugin"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *launcher, f"config={config}", *chosen], check=True, timeout=600, env=environment)
        losses[processes] = [record["loss"] for record in records(folder)]
    assert len(losses[2]) == UPDATES
    assert losses[2] == pytest.approx(losses[1], rel=bound)
