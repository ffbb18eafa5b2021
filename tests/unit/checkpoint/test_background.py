"""Checkpoints written beside the training: of the moment they were asked for, one at a time, and none lost or unnoticed."""

import logging
import stat
import threading

import pytest
import torch

from pixelbert_plugin.checkpoint import restore, tensor_store
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints, TrainState, problem
from pixelbert_plugin.errors import UserError
from unit.checkpoint.test_checkpoints import METADATA
from unit.training.test_step import Linear, rows, trainer

CPU = torch.device("cpu")


class Slow:
    """The writing of tensors, which waits until it is let go."""

    def __init__(self, monkeypatch, fails=False):
        self.go, self.begun, self.write, self.fails = threading.Event(), threading.Event(), tensor_store.write, fails
        monkeypatch.setattr(tensor_store, "write", self)

    def __call__(self, tensors, folder, group=None):
        self.begun.set()
        assert self.go.wait(60)
        if self.fails:
            raise OSError(28, "No space left on device")
        self.write(tensors, folder, group)


@pytest.fixture
def training(tmp_path):
    """A function that trains an update and saves; `training.built` and `training.checkpoints`."""
    return make_training(tmp_path)


def make_training(tmp_path, device=CPU):
    built, checkpoints = trainer(Linear().to(device), device=device), Checkpoints(tmp_path / "checkpoints", 3)

    def go_on(update):
        built.step([rows(0, 8, device)], update, 0.0)
        state = TrainState(update=update, samples=8 * update, best_update=update)
        checkpoints.save(built.model, built.step.optimizers, built.step.precision, state, METADATA)
        return state

    go_on.built, go_on.checkpoints = built, checkpoints
    return go_on


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_goes_on_and_the_checkpoint_is_of_the_moment_it_was_asked_for(training, monkeypatch):
    is_of_the_moment(CPU, training, monkeypatch)


def is_of_the_moment(device, training, monkeypatch):
    slow = Slow(monkeypatch)
    with training.checkpoints.beside_training():
        state = training(1)
        asked = weights(training.built.model)
        assert slow.begun.wait(60)
        training.built.step([rows(0, 8, device)], 2, 0.0)  # while it is written
        state.best_update = 7
        assert not equal(weights(training.built.model), asked)
        assert not list(training.checkpoints.folder.glob("update_*"))
        slow.go.set()
    path = training.checkpoints.of(1)
    assert problem(path) is None and equal(restore.read_model(path), {name: value.cpu() for name, value in asked.items()})
    assert training.checkpoints.best().resolve() == path
    other = trainer(Linear().to(device), device=device)
    restore.load_weights(path, other.model, "k")
    restore.load_training(path, restore.read_content(path, "k"), other.model, other.step.optimizers, other.step.precision, "k")
    other.step([rows(0, 8, device)], 2, 0.0)
    assert equal(weights(other.model), weights(training.built.model))  # optimizers too are of that moment


def test_the_next_one_waits_and_settle_waits(training, monkeypatch):
    slow = Slow(monkeypatch)
    with training.checkpoints.beside_training():
        training(1)
        threading.Timer(0.2, slow.go.set).start()
        training(2)
        assert training.checkpoints.of(1)  # whole before the second was begun
        training.checkpoints.settle()
        assert training.checkpoints.of(2)
    assert sorted(path.name for path in training.checkpoints.folder.iterdir()) == ["best", "update_000001", "update_000002"]


@pytest.mark.parametrize("where", ["settle", "save", "end"])
def test_a_failed_write_is_raised_where_it_is_waited_for(training, monkeypatch, where):
    slow = Slow(monkeypatch, fails=True)
    slow.go.set()
    with pytest.raises(UserError, match=r"update_000001: cannot be written \(No space left on device\)"):  # noqa: SIM117
        with training.checkpoints.beside_training():
            training(1)
            if where == "settle":
                training.checkpoints.settle()
            elif where == "save":
                training(2)
            assert where == "end"
    assert not list(training.checkpoints.folder.iterdir())


@pytest.mark.parametrize("fails", [False, True])
def test_what_ends_a_training_loses_no_checkpoint_and_stays_the_error(training, monkeypatch, caplog, fails):
    slow = Slow(monkeypatch, fails)
    with pytest.raises(ZeroDivisionError), caplog.at_level(logging.ERROR):  # noqa: SIM117
        with training.checkpoints.beside_training():
            training(1)
            threading.Timer(0.2, slow.go.set).start()
            raise ZeroDivisionError
    assert ("No space left on device" in caplog.text) == fails
    assert fails or problem(training.checkpoints.of(1)) is None


def test_memory_is_used_again_and_new_tensors_join(training):
    with training.checkpoints.beside_training():
        training(1)
        background = training.checkpoints._background
        background.wait()
        before = {name: value.data_ptr() for name, value in background._copies.items()}
        assert before
        background.copy({**{name: torch.zeros_like(value) for name, value in background._copies.items()}, "new": torch.ones(3)})
        after = {name: value.data_ptr() for name, value in background._copies.items()}
        assert before.items() <= after.items() and after.keys() - before.keys() == {"new"}
        assert all(not value.any() for name, value in background._copies.items() if name != "new")


def test_files_have_the_mode_that_the_umask_allows(training):
    training(1)
    other = training.checkpoints.folder / "other"
    other.touch()
    expected = stat.S_IMODE(other.stat().st_mode)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in training.checkpoints.of(1).iterdir()}
    assert set(modes.values()) == {expected}, modes


def test_outside_of_training_it_is_written_at_once(training):
    training(1)
    assert problem(training.checkpoints.of(1)) is None
