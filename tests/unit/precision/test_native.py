"""Precisions against training loops written out here: float32, float16 autocast, half weights with and without masters."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

from pixelbert_plugin import registry
from pixelbert_plugin.errors import NonFiniteLossError, UserError
from pixelbert_plugin.precision import native as precision
from pixelbert_plugin.precision.loss_scale import LossScale

CPU = torch.device("cpu")
UPDATES, OVERFLOW = 4, 1  # updates in a loop; the one in which a gradient of the first optimizer is infinite
START = 1024.0  # loss scale at the start: nothing but the planted overflow overflows


class Net(nn.Module):
    """A convolution with batch norm for one optimizer, a linear part for the other, and one frozen layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.frozen, self.out = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 1)

    def forward(self, images):
        pixels = torch.relu(self.bn(self.conv(images))).mean((2, 3))
        return self.out(torch.tanh(self.frozen(pixels)))[:, 0]


def optimizers(net):
    cnn = torch.optim.SGD([*net.conv.parameters(), *net.bn.parameters()], lr=0.1, momentum=0.9)
    return {"cnn": cnn, "rest": torch.optim.AdamW(net.out.parameters(), lr=0.01, eps=1e-4)}


def data():
    """Micro-batches, two an update: images and targets."""
    draw = torch.Generator().manual_seed(3)
    pairs = [(torch.randn(4, 3, 6, 6, generator=draw), 3 * torch.randn(4, generator=draw)) for _ in range(2 * UPDATES)]
    return [pairs[i : i + 2] for i in range(0, len(pairs), 2)]


def build(name, **options):
    return registry.build("precision", name, options or None, f"precision_config.{name}", device=CPU)


def apex(level, **options):
    return build("apex", opt_level=level, backend="native", **options)


def loss_of(net, images, targets):
    return ((net(images).float() - targets) ** 2).sum() / 8


def run(built, max_norm, overflows):
    """Train by the precision under test. Returns weights as optimizers hold them, norms, and the precision."""
    net = Net()
    held = optimizers(net)
    built.prepare(net, held)
    norms = []
    for update, batches in enumerate(data()):
        for index, batch in enumerate(batches):
            with built.autocast():
                loss = loss_of(net, *batch)
            built.backward(loss, is_last=index == 1)
        if overflows and update == OVERFLOW:
            net.conv.bias.grad[2] = math.inf
        norms.append(float(built.step(held.values(), max_norm)))
    assert all(parameter.grad is None for parameter in net.parameters())
    return built.optimized(net), norms, net


def by_hand(level, max_norm, overflows, scale, is_dynamic):
    """The same training, written out: level is fp32, autocast, half (weights, float32 norms and masters) or pure half."""
    net = Net()
    if level == "half":
        masters = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
        net.half()
        net.bn.float()
    elif level == "pure":
        net.half()
    if level != "half":
        masters = dict(net.named_parameters())
    shadow = copy.deepcopy(Net())  # only its names are used: the optimizers hold the masters
    trained = {name for name, p in shadow.named_parameters() if p.requires_grad}
    cnn = [masters[f"{part}.{n}"] for part in ("conv", "bn") for n in ("weight", "bias")]
    rest = [masters["out.weight"], masters["out.bias"]]
    sgd = torch.optim.SGD(cnn, lr=0.1, momentum=0.9)
    adamw = torch.optim.AdamW(rest, lr=0.01, eps=1e-4)
    norms = []
    for update, batches in enumerate(data()):
        for images, targets in batches:
            images = images.half() if level in ("half", "pure") else images
            with torch.autocast("cpu", dtype=torch.float16, enabled=level == "autocast"):
                loss = loss_of(net, images, targets)
            (loss * scale).backward()
        if overflows and update == OVERFLOW:
            net.conv.bias.grad[2] = math.inf
        total = 0.0
        for name, parameter in net.named_parameters():
            if name in trained:
                gradient = parameter.grad / scale if level == "pure" else parameter.grad.float() / scale
                parameter.grad = None
                masters[name].grad = gradient
                total += float(gradient.double().square().sum())
        norms.append(math.sqrt(total))
        if is_dynamic and not math.isfinite(total):
            scale /= 2
            sgd.zero_grad()
            adamw.zero_grad()
            continue
        for parameter in [*cnn, *rest]:
            if max_norm is not None and norms[-1] > max_norm:
                parameter.grad *= max_norm / norms[-1]
        sgd.step()
        adamw.step()
        sgd.zero_grad()
        adamw.zero_grad()
        if level == "half":
            for name, parameter in net.named_parameters():
                parameter.data.copy_(masters[name].data)
    return masters, norms, net


LEVELS = [
    pytest.param(lambda: build("fp32"), "fp32", 1.0, False, id="fp32"),
    pytest.param(lambda: build("fp16", init_scale=START), "autocast", START, True, id="fp16"),
    pytest.param(lambda: apex("O0"), "fp32", 1.0, False, id="O0"),
    pytest.param(lambda: apex("O1", loss_scale=64), "autocast", 64.0, False, id="O1"),
    pytest.param(lambda: apex("O2", loss_scale="128"), "half", 128.0, False, id="O2"),
    pytest.param(lambda: apex("O3"), "pure", 1.0, False, id="O3"),
    pytest.param(lambda: apex("O3", loss_scale=16), "pure", 16.0, False, id="O3, scaled"),
    pytest.param(lambda: dynamic(apex("O1")), "autocast", START, True, id="O1, dynamic"),
    pytest.param(lambda: dynamic(apex("O2")), "half", START, True, id="O2, dynamic"),
]


def dynamic(built):
    built.load_state_dict({"loss_scale": START, "clean_updates": 0, "skipped_updates": 0})
    return built


@pytest.mark.parametrize("max_norm", [None, 0.3])
@pytest.mark.parametrize(("make", "level", "scale", "is_dynamic"), LEVELS)
def test_training_equals_a_hand_written_loop(make, level, scale, is_dynamic, max_norm):
    built = make()
    ours, our_norms, net = run(built, max_norm, overflows=is_dynamic)
    theirs, their_norms, their_net = by_hand(level, max_norm, is_dynamic, scale, is_dynamic)
    assert max(norm for norm in their_norms if math.isfinite(norm)) > 0.3  # clipping does something
    for index, (norm, expected) in enumerate(zip(our_norms, their_norms, strict=True)):
        assert norm == pytest.approx(expected, rel=2e-3 if level == "pure" else 1e-5) or (is_dynamic and index == OVERFLOW)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], msg=lambda text, name=name: f"{name}: {text}")
    for (name, value), expected in zip(net.state_dict().items(), their_net.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, msg=lambda text, name=name: f"{name}: {text}")
    assert built.skips_overflow is is_dynamic and built.skipped_updates == is_dynamic
    assert built.loss_scale in (None, scale / 2 if is_dynamic else scale)


@pytest.mark.parametrize(
    "make", [lambda: build("fp16"), *(lambda o=o: apex(o, loss_scale="dynamic") for o in ("O1", "O2", "O3"))]
)
@pytest.mark.parametrize("place", ["conv.bias", "out.weight"])
def test_an_overflow_in_one_optimizer_skips_both(make, place):
    built = dynamic(make())
    net = Net()
    held = optimizers(net)
    built.prepare(net, held)
    before = {name: weight.detach().clone() for name, weight in built.optimized(net).items()}
    states = []
    for is_overflow in (True, False):
        with built.autocast():
            loss = loss_of(net, *data()[0][0])
        built.backward(loss)
        if is_overflow:
            net.get_parameter(place).grad.view(-1)[0] = math.inf
        norm = built.step(held.values(), None)
        assert bool(norm.isfinite()) is not is_overflow and norm.dtype == torch.float32
        same = {name for name, weight in built.optimized(net).items() if torch.equal(weight, before[name])}
        trained = {name for name, weight in net.named_parameters() if weight.requires_grad}
        assert same >= trained if is_overflow else not same & {"conv.weight", "out.weight"}
        states.append([len(optimizer.state) for optimizer in held.values()])
        assert all(p.grad is None for p in [*net.parameters(), *built.optimized(net).values()])
    assert states == [[0, 0], [4, 2]]
    assert built.state_dict() == {"loss_scale": START / 2, "clean_updates": 1, "skipped_updates": 1}


@pytest.mark.parametrize("overflows", [{3, 4, 12}, {0}, {2, 6, 10}, set(), set(range(20))])
def test_loss_scales_follow_torchs_grad_scaler(overflows):
    ours = LossScale(growth_interval=3)
    theirs = torch.amp.GradScaler("cpu", init_scale=65536, growth_interval=3)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for update in range(20):
        theirs.scale(weight.sum()).backward()
        if update in overflows:
            weight.grad[0] = math.inf
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(is_skipped=update in overflows)
        assert ours.value == theirs.get_scale(), update
    assert ours.clean_updates == theirs._get_growth_tracker() and ours.skipped_updates == len(overflows)


def test_a_scale_that_sinks_ends_the_run_with_a_remedy():
    scale = LossScale()
    for _ in range(29):
        scale.update(is_skipped=True)
    with pytest.raises(NonFiniteLossError, match=r"sunk to 6.1e-05.*Lower the learning rates.*bf16 or fp32"):
        scale.update(is_skipped=True)


def test_scales_grow_to_apexs_limit_and_fixed_ones_stay():
    apex_scale = apex("O2").scale
    for _ in range(10):
        apex_scale.clean_updates = 1999
        apex_scale.update(is_skipped=False)
    assert apex_scale.value == 2**24
    fixed = apex("O2", loss_scale=3).scale
    fixed.update(is_skipped=True)
    assert fixed.value == 3 and fixed.state_dict() == {}


def test_states_pass_from_one_precision_to_another():
    fp16, o2 = build("fp16", growth_interval=10), apex("O2")
    o2.load_state_dict({"loss_scale": 512.0, "clean_updates": 700, "skipped_updates": 4})
    fp16.load_state_dict(o2.state_dict())
    assert fp16.state_dict() == {"loss_scale": 512.0, "clean_updates": 9, "skipped_updates": 4}
    for other in (build("fp32"), build("bf16"), apex("O0"), apex("O3")):
        scale = other.loss_scale
        other.load_state_dict(o2.state_dict())
        assert other.state_dict() == {} and other.loss_scale == scale
    fp16.load_state_dict({})
    assert fp16.loss_scale == 512.0


def test_masters_are_the_weights_before_rounding_those_of_frozen_layers_too():
    net, o2 = Net(), apex("O2")
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    o2.prepare(net, optimizers(net))
    kinds = {name: value.dtype for name, value in net.state_dict().items() if value.is_floating_point()}
    assert {name for name, dtype in kinds.items() if dtype == torch.float32} == {name for name in kinds if "bn." in name}
    assert (net.conv.weight.float() != before["conv.weight"]).any()  # rounded
    held = o2.optimized(net)
    assert all(torch.equal(held[name], weight) for name, weight in before.items()) and held.keys() == before.keys()
    assert held["bn.weight"] is net.bn.weight and not held["frozen.weight"].requires_grad


@pytest.mark.parametrize(
    ("level", "options", "norm_type", "master_type"),
    [
        ("O2", {"keep_batchnorm_fp32": False}, torch.float16, torch.float32),
        ("O2", {"master_weights": False}, torch.float32, torch.float16),
        ("O3", {}, torch.float16, torch.float16),
        ("O3", {"keep_batchnorm_fp32": True, "master_weights": True}, torch.float32, torch.float32),
        ("O0", {"keep_batchnorm_fp32": False, "master_weights": True}, torch.float32, torch.float32),
    ],
)
def test_overrides_of_a_level(level, options, norm_type, master_type):
    net, built = Net(), apex(level, **options)
    built.prepare(net, held := optimizers(net))
    assert net.bn.weight.dtype == net.bn.running_var.dtype == norm_type
    assert held["rest"].param_groups[0]["params"][0].dtype == master_type == built.optimized(net)["out.weight"].dtype


def test_evaluation_alone_casts_the_model_and_makes_no_masters():
    net, o2 = Net().eval(), apex("O2")
    images, targets = data()[0][0]
    expected = loss_of(net, images, targets)
    o2.prepare(net, {})
    assert net.conv.weight.dtype == torch.float16 and o2.optimized(net)["conv.weight"] is net.conv.weight
    torch.testing.assert_close(loss_of(net, images, targets), expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("level", "options", "is_refused"),
    [("O3", {}, True), ("O2", {"master_weights": False}, True), ("O2", {}, False), ("O3", {"master_weights": True}, False)],
)
def test_an_eps_that_is_zero_in_float16_is_refused_where_half_weights_are_stepped(level, options, is_refused):
    net = Net()
    held = {"rest": torch.optim.AdamW(net.out.parameters(), eps=1e-8)}
    if is_refused:
        with pytest.raises(UserError, match=r"optimizer.rest.params.eps: 1e-08 is 0 in float16.*set it to 1e-4"):
            apex(level, **options).prepare(net, held)
    else:
        apex(level, **options).prepare(net, held)


def test_norm_of_nothing_is_zero_and_half_gradients_do_not_overflow():
    assert float(precision.global_norm([nn.Parameter(torch.ones(2))], CPU)) == 0
    half, full = nn.Parameter(torch.ones(4).half()), nn.Parameter(torch.ones(1))
    half.grad, full.grad = torch.full((4,), 40000.0).half(), torch.tensor([60000.0])
    assert float(precision.global_norm([half, full], CPU)) == pytest.approx(100000)


def test_norm_and_clipping_of_sharded_gradients():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = DeviceMesh("cpu", [0])
        sharded = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Shard(0)]))
        plain = nn.Parameter(torch.zeros(2))
        sharded.grad, plain.grad = distribute_tensor(torch.tensor([6.0, 0.0]), mesh, [Shard(0)]), torch.tensor([0.0, 8.0])
        optimizer = torch.optim.SGD([sharded], lr=1.0)
        norm = build("fp32").step([optimizer, torch.optim.SGD([plain], lr=1.0)], 1.0)
        assert type(norm) is torch.Tensor and float(norm) == pytest.approx(10)
        torch.testing.assert_close(sharded.detach().full_tensor(), torch.tensor([-0.6, 0.0]))
        torch.testing.assert_close(plain.detach(), torch.tensor([0.0, -0.8]))
    finally:
        torch.distributed.destroy_process_group()


def test_descriptions_and_choice():
    assert precision.choose("auto", {}, CPU).description == {"precision": "fp32", "backend": "native"}
    assert precision.choose("fp16", {"fp16": {"init_scale": 0.5}}, CPU).loss_scale == 0.5
    built = precision.choose("fp16", {"fp16": {"init_scale": 8.0}}, CPU)
    assert built.loss_scale == 8 and built.description == {"precision": "fp16", "backend": "native"}
    assert apex("O2").description == {
        "precision": "apex",
        "opt_level": "O2",
        "backend": "native",
        "reason": "precision_config.apex.backend=native",
    }
    with pytest.raises(UserError, match=r"training.precision: 'tf32' needs a GPU of compute capability 8.0"):
        precision.choose("tf32", {}, CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opt_level": "O1", "keep_batchnorm_fp32": True}, r"apex.keep_batchnorm_fp32: True is invalid: opt_level O1"),
        ({"opt_level": "O1", "master_weights": False}, r"apex.master_weights: False is invalid: opt_level O1"),
        ({"loss_scale": "high"}, r"apex.loss_scale: 'high' is invalid: must be dynamic or a number above 0"),
        ({"loss_scale": -1}, r"apex.loss_scale: -1 is invalid"),
        ({"opt_level": "O4"}, r"apex.opt_level: 'O4' is invalid"),
    ],
)
def test_apex_options_that_nvidia_refuses(options, message):
    with pytest.raises(UserError, match=message):
        registry.configure("precision", "apex", options, "precision_config.apex")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_norm_of_a_large_tensor_is_its_norm_and_that_of_its_parts(dtype):
    """In float32, squares added up one by one lose 3e-4 of the norm of four million."""
    values = (torch.randn(4_000_001, generator=torch.Generator().manual_seed(0)) ** 3).to(dtype)
    grouped = values[:-1].view(5, 8, 1000, 100)
    ways = [[values], list(values.chunk(2)), list(values.split(999_999)), [grouped, values[-1]], [grouped.mT, values[-1]]]
    for parts in ways:
        held = [torch.nn.Parameter(part) for part in parts]
        for parameter in held:
            parameter.grad = parameter.detach()
        found = precision.global_norm(held, CPU)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(values.double().norm()), rel=1e-7)


@pytest.mark.parametrize(("capability", "is_enough"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_tf32_needs_ampere(monkeypatch, capability, is_enough):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda name: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    with nullcontext() if is_enough else pytest.raises(UserError, match=r"'tf32' needs a GPU of compute capability 8\.0"):
        precision.choose("tf32", {}, torch.device("cuda"))
