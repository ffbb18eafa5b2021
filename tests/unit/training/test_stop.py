"""Ctrl-C and SIGTERM at every moment of the loop: what is trained is saved, and the resumed run is the unbroken one."""

import os
import signal
from dataclasses import asdict, replace

import pytest

from pixelbert_plugin.checkpoint import evaluated
from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.commands import command
from pixelbert_plugin.distributed.processes import Processes
from pixelbert_plugin.errors import Stopped, UserError
from pixelbert_plugin.evaluation.evaluator import SplitEvaluation
from pixelbert_plugin.system import interrupt
from unit.training.test_trainer import looping

SCORES = [0.3, 0.5, 0.4, 0.2]  # of updates 2, 4, 6 and 7
OPTIONS = {"max_updates": 7, "batch_size": 8, "evaluation_interval": 2, "checkpoint_interval": 3}


@pytest.fixture(autouse=True)
def signals():
    """A run that is interrupted leaves Ctrl-C changed for the rest of the process."""
    former = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


class Run:
    """A run over scores that are a function of the update; `folder` holds what was saved and what was recorded beside it."""

    def __init__(self, at=None, what=None, number=signal.SIGINT):
        self.at, self.what, self.number = at, what, number
        self.saved, self.evaluated = [], []

    def moment(self, update, what):
        if (update, what) == (self.at, self.what):
            self.at = None  # once: a second signal would end the run at once
            os.kill(os.getpid(), self.number)

    def train(self, state=None) -> TrainState:
        built = looping(SCORES, **OPTIONS)
        built.state = state or TrainState()
        step, at = built.step.precision.step, built.state

        def update(*arguments):
            self.moment(at.update + 1, "update")
            return step(*arguments)

        def evaluate():
            self.moment(at.update, "evaluation")
            if built.stop.is_set:  # as the loader does between two batches
                raise Stopped("stopped in an evaluation")
            self.evaluated.append(at.update)
            return {"val/set": SplitEvaluation({"score": dict(zip((2, 4, 6, 7), SCORES, strict=True))[at.update]})}

        def save(state):
            self.moment(state.update, "save")
            self.saved.append(asdict(state))

        def record(state):
            self.saved[-1] |= {name: asdict(state)[name] for name in evaluated.FIELDS}

        class Asked(Processes):
            def any(self, flag):
                run.moment(at.update, "asked")
                return flag

        run, built.step.processes = self, Asked()
        built.step.precision.step, built.evaluate, built.save, built.record = update, evaluate, save, record
        built.settle = lambda: None  # it is on the disk at once
        with built.stop.handled():
            return built.train()

    def resumed(self) -> TrainState:
        self.at = None
        return self.train(TrainState(**self.saved[-1]))


def plain(state: TrainState) -> dict:
    return asdict(replace(state, seconds=0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("update", "what", "saved"),
    [
        (1, "update", 1),
        (4, "update", 4),
        (3, "save", 3),
        (4, "save", 4),
        (4, "evaluation", 4),
        (7, "save", 7),
        (7, "evaluation", 7),
        (1, "asked", 2),  # the answer was no: nothing is saved of update 1, so the run ends after the next
        (3, "asked", 3),
        (5, "asked", 6),
    ],
)
def test_a_signal_at_any_moment_saves_and_the_resumed_run_is_the_unbroken_one(number, update, what, saved):
    run = Run(update, what, number)
    name, status = {signal.SIGINT: ("Ctrl-C", 130), signal.SIGTERM: ("SIGTERM", 75)}[number]
    with pytest.raises(Stopped, match=rf"stopped by {name} (in the evaluation )?after update {saved}, which is saved") as error:
        run.train()
    assert error.value.exit_status == status
    assert run.saved[-1]["update"] == saved
    assert run.saved[-1]["is_evaluation_due"] == (saved in (2, 4, 6, 7))  # it is made up for
    assert plain(run.resumed()) == plain(Run().train())
    assert run.evaluated == [2, 4, 6, 7]  # each once, as in the unbroken run
    assert run.saved[-1]["best_update"] == 4 and not run.saved[-1]["is_evaluation_due"]


def test_a_signal_after_the_evaluation_keeps_what_it_came_to():
    run = Run()
    built_record = []
    looped = looping(SCORES, **OPTIONS)
    looped.record = lambda state: built_record.append(asdict(state)) or os.kill(os.getpid(), signal.SIGTERM)
    with looped.stop.handled(), pytest.raises(Stopped, match="after the evaluation after update 2, which is saved"):
        looped.train()
    assert built_record[0]["best"] == 0.3 and not built_record[0]["is_evaluation_due"] and not run.saved


def test_an_evaluation_that_raises_loses_nothing():
    built = looping(SCORES, **OPTIONS)

    def evaluate():
        raise UserError("x.jpg: no such file")

    built.evaluate = evaluate
    with pytest.raises(UserError, match=r"x.jpg: no such file \(in the evaluation after update 2, which is saved; checkpoint"):
        built.train()
    assert built.saved == [2]


def test_a_second_ctrl_c_ends_at_once(monkeypatch, capfd):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    built = looping(SCORES, **OPTIONS)
    step = built.step.precision.step

    def twice(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    built.step.precision.step = twice
    with built.stop.handled(), pytest.raises(Stopped):
        built.train()
    lines = capfd.readouterr().err.split("\n")
    assert ended == [130] and any(line.startswith("interrupted twice: ended at once") for line in lines)
    assert any("a checkpoint is saved after this update" in line for line in lines)


def test_ctrl_c_where_nothing_is_trained_is_one_line(capsys):
    def run():
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    assert command.exit_status(run, False, "resume it") == 130
    assert capsys.readouterr().err == "interrupted; resume it\n"
    os.kill(os.getpid(), signal.SIGINT)  # while Python ends, another one changes nothing
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_that_a_package_turned_into_its_own_error_is_one_line_all_the_same(capsys):
    def run():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("numpy.core failed to import") from error

    assert command.exit_status(run, False, "resume it") == 130
    assert capsys.readouterr().err == "interrupted; resume it\n"


def test_without_a_signal_ctrl_c_is_as_it_was_afterwards():
    former = signal.getsignal(signal.SIGINT)
    assert command.exit_status(lambda: 0, False, "") == 0
    assert signal.getsignal(signal.SIGINT) is former


def test_an_ignored_ctrl_c_stays_ignored():
    """As a shell starts a job in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupt.handling(SIGINT=interrupt.interrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("change", ["best", "cut", "gone field"])
def test_what_an_evaluation_came_to_is_refused_where_it_was_altered(tmp_path, change):
    state = asdict(TrainState(update=4, best=0.5, best_update=4, metrics={"val/set/score": 0.5}))
    assert evaluated.read(tmp_path) == {}
    evaluated.write(tmp_path, state)
    assert evaluated.read(tmp_path) == {name: state[name] for name in evaluated.FIELDS}
    file = tmp_path / evaluated.NAME
    text = file.read_text()
    changed = {
        "best": text.replace('"best": 0.5', '"best": 0.9'),
        "cut": text[:40],
        "gone field": text.replace('"best": 0.5, ', ""),
    }
    assert changed[change] != text
    file.write_text(changed[change])
    with pytest.raises(ValueError, match=r"evaluated\.json"):
        evaluated.read(tmp_path)
