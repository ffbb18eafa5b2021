"""NVIDIA's Apex: found by its files, driven in its own order (against a stand-in), replaced with the reason said.

The stand-in imitates apex.amp's contract and records what is called. It is no evidence of how real Apex behaves.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.optim.optimizer_state import parameter_state, set_parameter_state
from pixelbert_plugin.precision.apex import nvidia as nvidia_apex
from pixelbert_plugin.precision.apex.levels import NativeLevel
from pixelbert_plugin.registry.schema import ConfigError

CPU = torch.device("cpu")
NVIDIA = ("multi_tensor_apply/__init__.py", "optimizers/__init__.py", "optimizers/fused_adam.py", "__init__.py")
AMP = ("amp/__init__.py", "amp/frontend.py")
PYRAMID = ("__init__.py", "lib/__init__.py", "lib/libapex.py", "forms.py", "models.py")
CASES = {
    "none": ((), "NVIDIA's Apex is not installed"),
    "pyramid": (PYRAMID, "is PyPI's Pyramid web toolkit of that name, not NVIDIA's Apex"),
    "other": (("__init__.py",), "is not NVIDIA's Apex"),
    "no amp": (NVIDIA, "has no amp: removed in May 2025 (commit cb65b8ed, NVIDIA/apex #1896); tag 25.05 is the last with it"),
    "no CUDA": ((*NVIDIA, *AMP), "apex.amp needs CUDA, and torch sees no CUDA device"),
}


def package(folder: Path, files, content: str = "") -> None:
    for name in files:
        path = folder / "apex" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if name == "amp/__init__.py" else "")


@pytest.fixture
def apex_of(tmp_path, monkeypatch):
    """Puts an `apex` of these files first on the path; forgets it afterwards."""

    def make(files, content: str = "") -> None:
        package(tmp_path, files, content)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]


def build(**options):
    return registry.build("precision", "apex", options, "precision_config.apex", device=CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without CUDA")
@pytest.mark.parametrize("case", CASES)
def test_without_usable_apex_it_is_native_with_one_warning_or_refused_with_the_reason(apex_of, caplog, case):
    files, reason = CASES[case]
    apex_of(files)
    built = build(opt_level="O2")
    assert isinstance(built, NativeLevel)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (
        len(warnings) == 1 and reason in warnings[0].getMessage() and "opt_level=O2 runs natively" in warnings[0].getMessage()
    )
    assert built.description["backend"] == "native" and reason in built.description["reason"]
    with pytest.raises(ConfigError) as refusal:
        build(backend="apex")
    assert reason in str(refusal.value) and refusal.value.key == "precision_config.apex.backend"
    caplog.clear()
    assert build(backend="native").description["reason"] == "precision_config.apex.backend=native" and not caplog.records


def test_an_amp_that_cannot_be_imported_says_why(apex_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    apex_of((*NVIDIA, *AMP), "from torch import _six")
    assert nvidia_apex.why_no_amp("cuda").startswith("apex.amp cannot be imported (ImportError: cannot import name '_six'")
    assert nvidia_apex.why_no_amp("cpu") == "apex.amp needs CUDA, and the model is on the cpu"
    assert "Apex's kernels (amp_C) are not built: amp_C cannot be imported" in nvidia_apex.why_no_kernels("amp_C", "cuda")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"opt_level": "O1", "keep_batchnorm_fp32": True}, "apex.keep_batchnorm_fp32: .* opt_level O1"),
        ({"opt_level": "O1", "master_weights": False}, "apex.master_weights: .* opt_level O1"),
        ({"opt_level": "O4"}, "opt_level"),
        ({"loss_scale": "large"}, "apex.loss_scale: .* must be dynamic or a number above 0"),
        ({"loss_scale": -1}, "apex.loss_scale: .* must be dynamic or a number above 0"),
        ({"backend": "amp"}, "backend"),
    ],
)
def test_wrong_options_are_refused(options, part):
    with pytest.raises(ConfigError, match=part):
        build(**options)


def test_defaults_and_overrides_are_those_that_apex_documents():
    found = {name: build(opt_level=name, backend="native") for name in ("O0", "O1", "O2", "O3")}
    assert [found[name].level.loss_scale for name in found] == [1.0, None, None, 1.0]
    assert [found[name].level.keeps_norms for name in found] == [False, False, True, False]
    assert [found[name].level.has_masters for name in found] == [False, False, True, False]
    assert [found[name].loss_scale for name in found] == [1.0, 65536.0, 65536.0, 1.0]
    assert build(opt_level="O2", backend="native", loss_scale="128").loss_scale == 128.0
    assert not build(opt_level="O2", backend="native", keep_batchnorm_fp32=False).level.keeps_norms


def adam(net, eps):
    return {"rest": torch.optim.AdamW(net.parameters(), eps=eps)}


def test_an_eps_that_is_zero_in_half_is_refused():
    for options in ({"opt_level": "O3"}, {"opt_level": "O2", "master_weights": False}):
        net = nn.Linear(2, 2)
        with pytest.raises(ConfigError, match=r"optimizer\.rest\.params\.eps.*1e-08 is 0 in float16"):
            build(backend="native", **options).prepare(net, adam(net, 1e-8))
        net = nn.Linear(2, 2)
        build(backend="native", **options).prepare(net, adam(net, 1e-4))
    net = nn.Linear(2, 2)
    build(backend="native", opt_level="O2").prepare(net, adam(net, 1e-8))  # its masters are float32


@pytest.mark.parametrize(("fused", "plain"), [("fused_adam", "adamw"), ("fused_sgd", "sgd")])
def test_fused_optimizers_fall_back_to_torchs_with_one_warning(caplog, fused, plain):
    nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours, theirs = (
        registry.build("optimizer", name, {"lr": 0.1}, "optimizer.x.params", named_parameters=list(net.named_parameters()))
        for name, net in zip((fused, plain), nets, strict=True)
    )
    assert [record.getMessage() for record in caplog.records if "is used" in record.getMessage()] == [
        f"optimizer type {fused}: NVIDIA's Apex is not installed; torch's fused "
        f"{ {'fused_adam': 'AdamW', 'fused_sgd': 'SGD'}[fused] } is used"
    ]
    assert ours.rule == theirs.rule
    for _ in range(3):
        for net, optimizer in zip(nets, (ours, theirs), strict=True):
            net(torch.arange(6.0).view(2, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(nets[0].weight, nets[1].weight)


def test_lamb_has_no_equivalent_and_says_so():
    net = nn.Linear(2, 2)
    with pytest.raises(
        ConfigError, match="fused_lamb has no equivalent in torch, and NVIDIA's Apex is not installed; use adamw"
    ):
        registry.build("optimizer", "fused_lamb", {}, "optimizer.x.params", named_parameters=list(net.named_parameters()))


def test_apexs_layer_norm_falls_back_with_one_warning(caplog):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    encoder = registry.build("encoder", "bert", {**sizes, "layer_norm": "apex"}, "e", vocab_size=10)
    assert sum("NVIDIA's Apex is not installed" in record.getMessage() for record in caplog.records) == 1
    assert {type(module) for name, module in encoder.named_modules() if name.endswith("LayerNorm")} == {nn.LayerNorm}


def test_step_counts_by_group_and_by_parameter_are_exchanged():
    """Apex's FusedAdam counts steps in its groups, torch for each parameter."""
    weight, apexs = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    torchs = torch.optim.AdamW([weight], fused=True)
    weight.grad = torch.ones(2)
    torchs.step()
    state = parameter_state(torchs, weight)
    assert float(state["step"]) == 1
    by_group = torch.optim.SGD([apexs], lr=1)
    by_group.counts_steps_by_group = True
    set_parameter_state(by_group, apexs, state)
    assert by_group.param_groups[0]["step"] == 1 and type(by_group.param_groups[0]["step"]) is int
    assert "step" not in by_group.state[apexs] and torch.equal(by_group.state[apexs]["exp_avg"], state["exp_avg"])
    again = parameter_state(by_group, apexs)
    assert float(again["step"]) == 1 and again.keys() == state.keys()


STAND_IN = '''
"""Imitates apex.amp: masters made lazily, scale_loss that arms a skip in every optimizer, one scaler."""
import contextlib
import types
import torch

calls = []
scaler = {"loss_scale": 64.0, "unskipped": 0}
_amp_state = types.SimpleNamespace(handle=types.SimpleNamespace(_clear_cache=lambda: calls.append("clear_cache")))


def initialize(model, optimizers=None, opt_level="O1", verbosity=1, **overrides):
    calls.append(["initialize", opt_level, overrides, [p.device.type for p in model.parameters()][:1]])
    model.half()
    for optimizer in optimizers or []:
        optimizer._amp_stash = types.SimpleNamespace(params_have_scaled_gradients=False)
        optimizer._amp_lazy_init = types.MethodType(lazy_init, optimizer)
    return (model, optimizers) if optimizers else model


def lazy_init(optimizer):
    calls.append("lazy_init")
    stash = optimizer._amp_stash
    stash.all_fp16_params, stash.all_fp32_from_fp16_params = [], []
    for group in optimizer.param_groups:
        for index, param in enumerate(group["params"]):
            master = param.detach().clone().float().requires_grad_()
            stash.all_fp16_params.append(param)
            stash.all_fp32_from_fp16_params.append(master)
            group["params"][index] = master
    optimizer.zero_grad = types.MethodType(lambda self: calls.append("zero_grad"), optimizer)  # takes no argument


@contextlib.contextmanager
def scale_loss(loss, optimizers, delay_unscale=False):
    calls.append(["scale_loss", len(optimizers), delay_unscale])
    yield loss.float() * scaler["loss_scale"]
    if delay_unscale:
        return
    overflow = False
    for optimizer in optimizers:
        stash = optimizer._amp_stash
        for half, master in zip(stash.all_fp16_params, stash.all_fp32_from_fp16_params):
            if half.grad is not None:
                master.grad = half.grad.float() / scaler["loss_scale"]
                overflow |= not bool(master.grad.isfinite().all())
    if not overflow:
        scaler["unskipped"] += 1
        return
    scaler.update(loss_scale=scaler["loss_scale"] / 2, unskipped=0)
    for optimizer in optimizers:
        step = optimizer.step

        def skip(optimizer=optimizer, step=step):
            calls.append("skipped step")
            optimizer.step = step

        optimizer.step = skip


def master_params(optimizer):
    return (p for group in optimizer.param_groups for p in group["params"])


def state_dict():
    return {"loss_scaler0": dict(scaler)}


def load_state_dict(state):
    calls.append("load_state_dict")
    scaler.update(state["loss_scaler0"])
'''

DRIVER = """
import json, sys
import torch
from torch import nn
torch.cuda.is_available = lambda: True  # of the stand-in, which needs none
from apex import amp
from pixelbert_plugin import registry
from pixelbert_plugin.registry import plugins
plugins.load()
from pixelbert_plugin.precision.apex import nvidia as nvidia_apex
nvidia_apex._why_no_cuda = lambda what, device_type: None

device = torch.device("cpu")
torch.manual_seed(0)
net = nn.ModuleDict({"cnn": nn.Linear(2, 3), "rest": nn.Linear(3, 1)})
net.forward = lambda x: net["rest"](net["cnn"](x.to(net["cnn"].weight.dtype)))
full = {name: value.detach().clone() for name, value in net.named_parameters()}
optimizers = {name: torch.optim.SGD(net[name].parameters(), lr=0.5) for name in net}
built = registry.build("precision", "apex", {"opt_level": "O2", "loss_scale": "dynamic"}, "p", device=device)
built.prepare(net, optimizers)
masters = built.optimized(net)
found = {"description": built.description, "masters_exact": all(torch.equal(masters[n], v) for n, v in full.items())}
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
parallel = nn.parallel.DistributedDataParallel(net)
amp.calls.append("ddp")
x = torch.randn(4, 2)

def update(scale=1.0, norm=0.01):
    for index in range(3):
        built.backward(parallel(x).float().square().sum() * scale, is_last=index == 2)
    return float(built.step(optimizers.values(), norm))

before = {name: value.detach().clone() for name, value in masters.items()}
found["norm"] = update()
moved = torch.cat([((masters[n] - v) / 0.5).flatten() for n, v in before.items()])
found["moved"] = float(moved.norm().item())
after = {name: value.detach().clone() for name, value in masters.items()}
amp.calls.append("overflow")
found["overflow_norm"] = str(update(scale=1e6))
found["unmoved"] = all(torch.equal(masters[n], v) for n, v in after.items())
found["state"] = built.state_dict()
built.load_state_dict({"loss_scale": 1024.0, "clean_updates": 7, "skipped_updates": 3})
found["restored"] = [built.state_dict(), amp.scaler]
found["calls"] = amp.calls
print(json.dumps(found))
"""


def test_the_glue_keeps_apexs_order_and_one_decision(tmp_path):
    package(tmp_path, (*NVIDIA, *AMP), STAND_IN)
    (tmp_path / "driver.py").write_text(DRIVER)
    done = subprocess.run([sys.executable, "driver.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["description"] == {"precision": "apex", "opt_level": "O2", "backend": "apex"}
    calls = found["calls"]
    assert calls[0] == ["initialize", "O2", {"loss_scale": "dynamic"}, ["cpu"]]
    assert calls[1:4] == ["lazy_init", "lazy_init", "ddp"]  # masters at once, DDP after amp
    first, second = calls[4 : calls.index("overflow")], calls[calls.index("overflow") + 1 :]
    scaled = [["scale_loss", 2, True], ["scale_loss", 2, True], ["scale_loss", 2, False]]
    assert [call for call in first if call[0] == "scale_loss"] == scaled  # both optimizers, unscaled once
    assert "skipped step" not in first and second.count("skipped step") == 2  # joint
    assert found["masters_exact"] and found["unmoved"]
    assert found["norm"] > 0.01 and found["moved"] == pytest.approx(0.01, rel=1e-3)  # clipped by one norm, on the masters
    assert found["overflow_norm"] == "inf"
    assert found["state"] == {"loss_scale": 32.0, "clean_updates": 0, "skipped_updates": 1}
    assert found["restored"][0] == {"loss_scale": 1024.0, "clean_updates": 7, "skipped_updates": 3}
    assert found["restored"][1] == {"loss_scale": 1024.0, "unskipped": 7}
