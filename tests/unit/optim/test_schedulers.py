"""Schedules against torch's own, a function of the position alone, whatever the batch size."""

import copy

import pytest
import torch
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR, LRScheduler

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.training.length import over_training, progress
from unit.training.test_trainer import looping

UPDATES, WARM_UP, FINAL, RATE = 40, 5, 0.1, 0.3


def schedule(name: str, options: TrainingConfig | None = None, **params):
    return over_training(registry.build("scheduler", name, params, "s"), options or TrainingConfig(max_updates=UPDATES))


def torchs(*make) -> list[float]:
    """The rate of every update by torch's schedulers, multiplied."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    made: list[LRScheduler] = [each(optimizer) for each in make]
    chained, rates = ChainedScheduler(made, optimizer), []
    for _ in range(UPDATES):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        chained.step()
    return rates


def warming(optimizer):
    return LinearLR(optimizer, start_factor=1 / WARM_UP, total_iters=WARM_UP - 1)


OF_TORCH = {
    "linear": lambda optimizer: LinearLR(optimizer, start_factor=1, end_factor=FINAL, total_iters=UPDATES),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=UPDATES, eta_min=FINAL * RATE),
}


@pytest.mark.parametrize("name", OF_TORCH)
def test_decays_are_torchs(name):
    factor = schedule(name, final_factor=FINAL)
    ours = [RATE * factor(update, 0.0) for update in range(1, UPDATES + 1)]
    assert ours == pytest.approx(torchs(OF_TORCH[name]), rel=1e-9) and ours[0] == RATE > ours[-1]


def test_warm_up_multiplies_as_torchs_chained_scheduler():
    factor = schedule("linear", final_factor=FINAL, warmup_updates=WARM_UP)
    ours = [RATE * factor(update, 0.0) for update in range(1, UPDATES + 1)]
    assert ours == pytest.approx(torchs(OF_TORCH["linear"], warming), rel=1e-9)
    assert ours[:2] == pytest.approx([RATE / 5, RATE * 2 / 5 * (1 - 0.9 / 40)])  # by hand
    constant = schedule("constant", warmup_updates=WARM_UP)
    assert [RATE * constant(update, 0.0) for update in range(1, UPDATES + 1)] == pytest.approx(torchs(warming), rel=1e-9)


def test_cosine_by_hand():
    factor = schedule("cosine", TrainingConfig(max_epochs=4), final_factor=0.5)
    assert [factor(9, epoch) for epoch in (0, 1, 2, 3, 4, 5)] == pytest.approx(
        [1, 0.5 + 0.25 * (1 + 2**-0.5), 0.75, 0.5 + 0.25 * (1 - 2**-0.5), 0.5, 0.5]
    )


def test_progress_is_that_of_the_limit_that_ends_the_training():
    assert progress(1, 0.0, 10, 2) == 0 and progress(1, 0.0, None, None) == 0
    assert progress(6, 0.25, 10, 2) == 0.5 and progress(6, 1.5, 10, 2) == 0.75
    assert progress(99, 0.0, 10, None) == progress(1, 9.0, None, 2) == 1


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_what_is_done_before_changes_nothing(name):
    """A resume asks at once for the middle; another order gives the same."""
    options = TrainingConfig(max_epochs=3)
    places = [(update, update / 7) for update in range(1, 22)]
    one, other = (schedule(name, options, warmup_updates=3) for _ in range(2))
    assert [one(*place) for place in places] == [other(*place) for place in reversed(places)][::-1]


def rates_by_epoch(batch_size: int, **options) -> dict[float, float]:
    """The first group's rate by the epoch at which an update starts."""
    training = TrainingConfig(max_epochs=2, batch_size=batch_size)
    factor, found = schedule("cosine", training), {}
    looping(
        schedule=lambda update, epoch: found.setdefault(epoch, factor(update, epoch)),
        max_epochs=2,
        batch_size=batch_size,
        **options,
    ).train()
    return found


def test_another_batch_size_has_the_same_rates_at_the_same_samples():
    small, large = rates_by_epoch(2), rates_by_epoch(4)
    assert len(small) == 8 and len(large) == 4 and large.items() <= small.items()
    assert list(large.values()) == pytest.approx([1, 0.5 + 0.5 * 2**-0.5, 0.5, 0.5 - 0.5 * 2**-0.5])


def test_a_resumed_training_has_the_rates_of_an_unbroken_one():
    factor = schedule("linear", TrainingConfig(max_epochs=2), warmup_updates=3)
    asked: list[tuple[int, float, float]] = []

    def noted(update, epoch):
        asked.append((update, epoch, factor(update, epoch)))
        return asked[-1][2]

    looping(schedule=noted, max_epochs=2, batch_size=3).train()
    unbroken, asked[:] = list(asked), []
    first = looping(schedule=noted, max_updates=4, batch_size=3)
    state = copy.deepcopy(first.train())
    second = looping(schedule=noted, max_epochs=2, batch_size=3)
    second.state = state
    second.train()
    assert asked == unbroken and len(unbroken) == 6


@pytest.mark.parametrize(
    ("name", "params", "key"),
    [("linear", {"final_factor": 1.5}, "final_factor"), ("cosine", {"warmup_updates": -1}, "warmup_updates")],
)
def test_what_makes_no_sense_is_refused(name, params, key):
    with pytest.raises(UserError, match=rf"^scheduler\.params\.{key}: .* is invalid: must be at"):
        registry.build("scheduler", name, params, "scheduler.params")
