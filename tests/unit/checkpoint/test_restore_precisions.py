"""A checkpoint of any precision resumes in any other: float32 weights and optimizer state are what is saved."""

import itertools

import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import restore, tensor_index
from pixelbert_plugin.checkpoint.checkpoints import CheckpointMetadata, Checkpoints, TrainState
from pixelbert_plugin.distributed.parallel import Alone, Losses
from unit.training.test_step import Linear, rows, trainer

NAMES = ["fp32", "bf16", "fp16", "O1", "O2", "O3"]
METADATA = CheckpointMetadata("a: 1\n", {}, {})


class HalfLinear(Linear):
    """Takes float32 rows in any precision of its weights."""

    def forward(self, batch):
        x = batch.x.to(self.cnn.weight.dtype)
        return self.rest(torch.tanh(self.cnn(x)))[:, 0].float()


def start(name, resumed=None):
    """A trainer in this precision, built in run.py's order, from a checkpoint where one is given."""
    model = HalfLinear()
    if resumed is not None:
        content = restore.read_content(resumed, "k")
        restore.load_weights(resumed, model, "k")
    built = trainer(model)
    for group in built.step.optimizers["rest"].param_groups:
        group["eps"] = 1e-4  # O3 refuses what is 0 in half
    apex = name.startswith("O")
    options = {"opt_level": name, "backend": "native"} if apex else None
    built.step.precision = registry.build("precision", "apex" if apex else name, options, "p", device=torch.device("cpu"))
    built.step.precision.prepare(model, built.step.optimizers)
    built.step.parallel = Alone(Losses(model, built.step.task, built.step.precision))
    if resumed is not None:
        built.state = restore.load_training(resumed, content, model, built.step.optimizers, built.step.precision, "k")
    return built


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """After three updates in each precision: its trainer and its checkpoint."""
    found = {}
    for name in NAMES:
        built = start(name)
        for update in (1, 2, 3):
            built.step([rows(0, 5), rows(5, 8)], update, 0.0)
        folder = tmp_path_factory.mktemp(name)
        state = TrainState(update=3, samples=24)
        found[name] = (
            built,
            Checkpoints(folder, 2).save(built.model, built.step.optimizers, built.step.precision, state, METADATA),
        )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_float32_and_exact(saved, name):
    built, path = saved[name]
    weights = restore.read_model(path)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    for key, value in built.step.precision.optimized(built.model).items():
        assert torch.equal(weights[key], value.detach().float())
    if name == "O2":  # not the half weights that the model computes with
        assert any(not torch.equal(weights[key], value.float()) for key, value in built.model.state_dict().items())
        assert built.model.cnn.weight.dtype == torch.float16
    states = {key for key in tensor_index.sizes(path) if key.startswith("optimizer/")}
    assert {key.rsplit("/", 1)[1] for key in states} == {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(NAMES, NAMES)))
def test_any_precision_goes_on_from_any_other(saved, source, target):
    before, path = saved[source]
    resumed = start(target, path)
    assert resumed.state.update == 3
    weights = restore.read_model(path)
    for key, value in resumed.step.precision.optimized(resumed.model).items():
        expected = weights[key].half() if target == "O3" else weights[key]
        assert torch.equal(value.detach(), expected)
    theirs, ours = (
        {
            k: float(o.state[p]["step"])
            for k, p in b.step.precision.optimized(b.model).items()
            for o in [b.step.optimizers["rest"]]
            if p in o.state
        }
        for b in (before, resumed)
    )
    assert ours == theirs and set(ours.values()) == {3.0 - before.step.precision.skipped_updates}
    if source == target:
        assert resumed.step.precision.state_dict() == before.step.precision.state_dict()
    elif before.step.precision.skips_overflow and resumed.step.precision.skips_overflow:
        assert resumed.step.precision.loss_scale == before.step.precision.loss_scale
    losses, norm = resumed.step([rows(0, 8)], 4, 0.0)
    reference = start("fp32", path)
    expected, expected_norm = reference.step([rows(0, 8)], 4, 0.0)
    for part, value in expected.items():
        torch.testing.assert_close(losses[part], value, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(norm, expected_norm, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_precision_goes_on_bit_for_bit(saved, name):
    _, path = saved[name]
    one, other = start(name, path), start(name, path)
    for update in (4, 5):
        a, _ = one.step([rows(0, 8)], update, 0.0)
        b, _ = other.step([rows(0, 8)], update, 0.0)
        assert all(torch.equal(a[part], b[part]) for part in a)
    unbroken = start(name)
    for update in (1, 2, 3, 4, 5):
        c, _ = unbroken.step([rows(0, 5), rows(5, 8)] if update < 4 else [rows(0, 8)], update, 0.0)
    assert all(torch.equal(a[part], c[part]) for part in a)
