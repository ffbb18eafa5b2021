"""Lengths and intervals counted in samples, against a walk through every update and against hand-counted cases."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelbert_plugin import config as configuration
from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.training.length import Length, carried_over, go_on


def walk(epoch_samples: int, batch: int, position: int, is_over) -> list[int]:
    """The position after each update, as the loader gives them: an epoch's last update takes what is left of it."""
    positions, updates = [], 0
    while not is_over(updates, position):
        position += min(batch, epoch_samples - position % epoch_samples)
        updates += 1
        positions.append(position)
    return positions


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 90), st.integers(1, 90), st.none() | st.integers(1, 60))
def test_total_updates_is_the_number_of_a_walk(epoch_samples, batch, position, end, max_updates):
    length = Length(epoch_samples, batch, max_updates, end / epoch_samples)
    positions = walk(epoch_samples, batch, position, lambda update, at: at >= end or update == max_updates)
    assert walk(epoch_samples, batch, position, length.is_over) == positions
    assert length.total_updates(0, position) == len(positions)


@pytest.mark.parametrize("batch", [3, 6, 12, 36, 100])
def test_a_run_stopped_at_two_epochs_ends_at_four_whatever_the_batch(batch):
    assert walk(36, batch, 72, Length(36, batch, None, 4.0).is_over)[-1] == 144


def test_fractions_end_at_the_first_update_that_reaches_them():
    assert Length(10, 1, None, 1.1).total_updates() == 11  # 1.1 · 10 in floating point is more than 11
    assert Length(64, 8, None, 1.2).end == 77
    assert walk(64, 8, 0, Length(64, 8, None, 1.2).is_over)[-1] == 80


@pytest.mark.parametrize(("every", "batch"), [(1, 7), (0.5, 4), (0.075, 3), (0.3, 20), (2, 9), (0.01, 5)])
def test_an_interval_in_epochs_is_due_where_a_multiple_is_reached(every, batch):
    epoch_samples, before = 40, 0
    length = Length(epoch_samples, batch, None, 6)
    for number, position in enumerate(walk(epoch_samples, batch, 0, length.is_over), 1):
        step = every * epoch_samples
        expected = any(before < k * step - 1e-6 <= position or abs(k * step - position) < 1e-6 for k in range(1, 700))
        assert length.is_due(None, every, number, before, position) == expected, position
        before = position


def test_an_interval_in_updates_counts_updates():
    length = Length(10, 4, 9)
    assert [update for update in range(1, 10) if length.is_due(3, None, update, 0, 0)] == [3, 6, 9]
    assert not any(length.is_due(None, None, update, 0, 0) for update in range(1, 10))


def test_a_position_is_carried_over_to_an_epoch_of_another_length():
    assert carried_over(42, 36, 37) == 37 + 6  # epoch 1.17 stays 1.16, where 42 of 37 would be 1.14
    assert carried_over(72, 36, 5) == 10 and carried_over(90, 36, 72) == 180
    for former, now, position in ((36, 37, 42), (100, 10, 355), (7, 7000, 20)):
        assert math.isclose(carried_over(position, former, now) / now, position / former, abs_tol=0.51 / now)


def test_a_resumed_state_is_carried_over_and_says_so(caplog):
    def taken(**values) -> TrainState:
        state = TrainState(**values)
        go_on(state, 37)
        return state

    former = taken(samples=42)  # of a checkpoint that kept no epoch_samples
    assert (former.position, former.epoch_samples, caplog.text) == (42, 37, "")
    same = taken(samples=50, position=42, epoch_samples=37)
    assert (same.position, same.samples, caplog.text) == (42, 50, "")
    other = taken(samples=42, position=42, epoch_samples=36)
    assert (other.position, other.samples, other.epoch_samples) == (43, 42, 37)
    assert "an epoch has 37 samples now, and had 36" in caplog.text and "goes on at epoch 1.16" in caplog.text


def read(tmp_path, own: str, *overrides: str, base: str = "{}"):
    (tmp_path / "base.yaml").write_text(f"datasets: [vqa2]\ntraining: {base}\n")
    (tmp_path / "own.yaml").write_text(f"includes: [base.yaml]\ntraining: {own}\n")
    training = configuration.load(str(tmp_path / "own.yaml"), list(overrides)).training
    return training.evaluation_interval, training.evaluation_interval_epochs


def test_the_later_unit_of_an_interval_holds(tmp_path):
    in_epochs, in_updates = "{evaluation_interval_epochs: 0.5}", "{evaluation_interval: 7}"
    assert read(tmp_path, in_epochs, base=in_updates) == (None, 0.5)
    assert read(tmp_path, in_updates, base=in_epochs) == (7, None)
    assert read(tmp_path, in_epochs, "training.evaluation_interval=9") == (9, None)
    assert read(tmp_path, in_epochs, "training.evaluation_interval=null") == (None, None)
    assert read(tmp_path, "{evaluation_interval: null, evaluation_interval_epochs: 2}") == (None, 2.0)  # as config.yaml has it


def test_both_units_at_once_are_refused(tmp_path):
    both = "{evaluation_interval: 7, evaluation_interval_epochs: 1}"
    with pytest.raises(UserError, match=r"training.evaluation_interval_epochs: 1.0 is invalid: contradicts training.eval.*=7"):
        read(tmp_path, both)
    with pytest.raises(UserError, match=r"training.checkpoint_interval_epochs: contradicts training.checkpoint_interval=3"):
        read(tmp_path, "{}", "training.checkpoint_interval=3", "training.checkpoint_interval_epochs=1")
    with pytest.raises(UserError, match=r"evaluation_interval_epochs: 0.0 is invalid: must be above 0"):
        read(tmp_path, "{evaluation_interval_epochs: 0}")


def test_checkpoints_come_every_thousand_updates_unless_epochs_are_given():
    assert TrainingConfig().checkpoint_updates == 1000
    assert TrainingConfig(checkpoint_interval_epochs=0.5).checkpoint_updates is None
