"""The engine's parts against values worked out here: steps, schedules, what is refused."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.distributed.parallel import Alone, Losses
from pixelbert_plugin.distributed.processes import ALONE
from pixelbert_plugin.errors import NonFiniteLossError
from pixelbert_plugin.precision import native as precision
from pixelbert_plugin.training.step import Step
from pixelbert_plugin.training.stop import StopSignal
from pixelbert_plugin.training.trainer import Trainer

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Two parameter groups, as Pixel-BERT has."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.rest = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, batch):
        return self.rest(torch.tanh(self.cnn(batch.x)))[:, 0]

    def parameter_groups(self):
        return {name: [(f"{name}.{n}", p) for n, p in getattr(self, name).named_parameters()] for name in ("cnn", "rest")}


class SquareTask:
    """Mean squared error; the second part counts only some rows, as masked words do."""

    pairs_per_sample = 1
    chosen = None

    def loss(self, output, batch):
        squares = (output - batch.y) ** 2
        return {"all": squares.sum(), "some": 0.5 * squares[batch.some].sum()}

    def counts(self, batch):
        return {"all": torch.tensor(float(len(batch.y))), "some": batch.some.sum().float()}


class Rows(SimpleNamespace):
    def __len__(self):
        return len(self.y)


def rows(start, stop, device=CPU):
    draw = torch.Generator().manual_seed(7)
    x, y = torch.randn(8, 3, generator=draw), torch.randn(8, generator=draw)
    some = torch.tensor([True, False, True, True, False, False, False, True])
    x, y, some = (values[start:stop].to(device) for values in (x, y, some))
    return Rows(x=x, y=y, some=some, sample_ids=list(range(start, stop)))


def trainer(model, max_norm=None, schedule=lambda update, epoch: 1.0, device=CPU, **options):
    optimizers = {
        "cnn": registry.build("optimizer", "sgd", {"lr": 0.1}, "o", named_parameters=model.parameter_groups()["cnn"]),
        "rest": registry.build("optimizer", "adamw", {"lr": 0.01}, "o", named_parameters=model.parameter_groups()["rest"]),
    }
    numbers, task = precision.Fp32(device), SquareTask()
    built = Trainer(
        model=model,
        step=Step(
            parallel=Alone(Losses(model, task, numbers)),
            task=task,
            optimizers=optimizers,
            schedule=schedule,
            precision=numbers,
            processes=ALONE,
            seed=TrainingConfig(**options).seed,
            max_grad_norm=max_norm,
        ),
        loader=[0] * 8,
        stop=StopSignal(),
        events=None,
        options=TrainingConfig(max_grad_norm=max_norm, **options),
        state=TrainState(),
        evaluate=dict,
        save=None,
        settle=lambda: None,
        record=lambda state: None,
        monitor=None,
    )
    built._unchecked = []
    return built


def test_accumulation_with_a_short_last_group_equals_the_whole_batch():
    whole, parts = Linear(), Linear()
    losses_whole, norm_whole = trainer(whole).step([rows(0, 8)], 1, 0.0)
    losses_parts, norm_parts = trainer(parts).step([rows(0, 3), rows(3, 6), rows(6, 8)], 1, 0.0)
    for name in losses_whole:
        torch.testing.assert_close(losses_whole[name], losses_parts[name])
    torch.testing.assert_close(norm_whole, norm_parts)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_update_equals_a_hand_written_step_with_one_global_norm():
    ours, theirs = Linear(), Linear()
    losses, norm = trainer(ours, max_norm=0.05).step([rows(0, 3), rows(3, 8)], 1, 0.0)
    data = rows(0, 8)
    squares = (theirs(data) - data.y) ** 2
    loss = squares.mean() + 0.5 * squares[data.some].mean()
    loss.backward()
    expected_norm = math.sqrt(sum(float((p.grad**2).sum()) for p in theirs.parameters()))
    assert float(norm) == pytest.approx(expected_norm, rel=1e-5) and expected_norm > 0.05
    assert float(sum(losses.values())) == pytest.approx(float(loss), rel=1e-5)
    for parameter in theirs.parameters():
        parameter.grad *= 0.05 / expected_norm
    sgd = torch.optim.SGD(
        [{"params": [theirs.cnn.weight], "weight_decay": 5e-4}, {"params": [theirs.cnn.bias]}], lr=0.1, momentum=0.9
    )
    adamw = torch.optim.AdamW(
        [{"params": [theirs.rest.weight], "weight_decay": 1e-2}, {"params": [theirs.rest.bias], "weight_decay": 0}], lr=0.01
    )
    sgd.step()
    adamw.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_schedule_scales_every_optimizer():
    built = trainer(Linear(), schedule=lambda update, epoch: 0.25)
    built.step([rows(0, 8)], 1, 0.0)
    assert [g["lr"] for g in built.step.optimizers["cnn"].param_groups] == [0.025, 0.025]
    assert [g["lr"] for g in built.step.optimizers["rest"].param_groups] == [0.0025, 0.0025]


def test_nan_names_update_and_samples():
    built = trainer(Linear())
    bad = rows(2, 5)
    bad.y = bad.y * float("nan")
    built.state.update = 7
    with pytest.raises(
        NonFiniteLossError, match=r"update 7: the loss or its gradient is not finite; samples of the batch: \[0, 1, 2, 3, 4\]"
    ):
        losses, norm = built.step([rows(0, 2), bad], 7, 0.0)
        built._note(losses, norm, [rows(0, 2), bad])


def test_first_bad_update_is_named_when_the_check_comes_late():
    built = trainer(Linear())
    for update, value in ((5, 1.0), (6, math.inf), (7, math.nan)):
        built._unchecked.append((update, torch.tensor(value), [update * 10]))
    with pytest.raises(NonFiniteLossError, match=r"update 6: .*\[60\]"):
        built.check_finite()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_updates": 5}, 5),
        ({"max_epochs": 2}, 6),  # 8 samples in batches of 3: three updates an epoch
        ({"max_epochs": 2, "max_updates": 4}, 4),
        ({"max_epochs": 1.5}, 5),
        ({"max_epochs": 0.1}, 1),
    ],
)
def test_total_updates(options, expected):
    assert trainer(Linear(), batch_size=3, **options).length.total_updates() == expected


def test_step_schedule_by_epochs_updates_and_warmup():
    paper = registry.build("scheduler", "step", {"milestones": [12, 16]}, "s")
    values = [paper(1, epoch) for epoch in (0, 11.99, 12, 15.9, 16, 18)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    by_updates = registry.build("scheduler", "step", {"milestones": [3], "unit": "updates", "warmup_updates": 2}, "s")
    assert [by_updates(update, 0.0) for update in (1, 2, 3, 4, 5)] == pytest.approx([0.5, 1, 1, 0.1, 0.1])


def test_biases_and_norms_do_not_decay():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.LayerNorm(2))
    optimizer = registry.build("optimizer", "adamw", {"weight_decay": 0.3}, "o", named_parameters=list(net.named_parameters()))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(net[0].weight), id(net[2].weight)}


def test_auto_precision_is_fp32_on_a_cpu_and_bf16_autocasts():
    assert type(precision.choose("auto", {}, CPU)) is precision.Fp32
    with precision.choose("bf16", {}, CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_weights_that_are_not_finite_are_not_saved():
    built = trainer(Linear())
    built._check_weights()
    built.model.cnn.bias.data[1] = math.inf
    with pytest.raises(NonFiniteLossError, match="the weights are not finite"):
        built._check_weights()
