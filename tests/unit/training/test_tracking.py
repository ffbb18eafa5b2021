"""Events, pictures and the console only warn, once; a log's lines are whole or missing."""

import errno
import io
import json
import os
import threading
from pathlib import Path

import pytest
from rich.console import Console

from pixelbert_plugin import registry
from pixelbert_plugin.errors import Stopped, UserError, writing
from pixelbert_plugin.evaluation.table import results_table
from pixelbert_plugin.system import cosmetic
from pixelbert_plugin.system.console import TolerantStream, make_tolerant
from pixelbert_plugin.training import pictures, records
from pixelbert_plugin.training.trackers import Trackers
from pixelbert_plugin.training.tracking import Events
from pixelbert_plugin.types import Result, Sample, TrackedRun

RECORD = {"update": 1, "loss": 0.5, "epoch": 0.1, "lr": {"cnn": 1e-2}, "samples_per_second": 3.0}

NOWHERE = Sample(sample_id=1, image_ids=("nowhere.jpg",), images=(Path("nowhere.jpg"),), text="what is it?")
RESULT = Result(sample=NOWHERE, prediction="a cat", truth="a dog")


def full(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def tracked(folder: Path, **changes) -> TrackedRun:
    options = {"training.seed": 2, "checkpoint.max_to_keep": 2, "used.device": "cpu"}
    values = {"name": "run", "folder": folder, "resumed_update": 0, "options": options, "changed": (), "config": "a: 1"}
    return TrackedRun(**values | changes)


def made_events(folder: Path, *trackers, **options) -> Events:
    made = Events(folder, 0, 0, Console(file=io.StringIO()), Trackers(trackers), **options)
    made.begin(tracked(folder))
    return made


@pytest.fixture
def board():
    return registry.build("tracker", "tensorboard")


@pytest.fixture
def events(tmp_path, board):
    made = made_events(tmp_path, board)
    yield made
    made.close()


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_line_is_whole_or_missing_and_later_ones_are_tried(tmp_path, caplog, events, monkeypatch):
    """A disk that takes ten bytes of a line, then none; later there is room again."""
    log, write, room = tmp_path / "log.jsonl", os.write, [None]

    def limited(descriptor, data):
        if room[0] is None:
            return write(descriptor, data)
        if room[0] == 0:
            full()
        taken = write(descriptor, data[: room[0]])
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", limited)
    events.train(RECORD, {})
    for number in (2, 3):
        room[0] = 10
        events.train({**RECORD, "update": number}, {})
    room[0] = None
    events.train({**RECORD, "update": 4}, {})
    assert [json.loads(line)["update"] for line in log.read_text().splitlines()] == [1, 4]
    assert len(warnings(caplog)) == 1 and "log.jsonl: lines are missing from here on (No space left" in warnings(caplog)[0]


def test_a_resume_cuts_the_log_and_drops_half_lines(tmp_path):
    log = tmp_path / "log.jsonl"
    for update in (1, 2, 3):
        records.append(log, {"update": update})
    log.write_bytes(log.read_bytes() + b'{"update": 4, "lo')
    records.cut(log, 2)
    assert log.read_text() == '{"update": 1}\n{"update": 2}\n'
    records.cut(log, 0)
    assert log.read_text() == ""


def test_tensorboard_that_cannot_be_written_is_told_once(tmp_path, caplog, monkeypatch, board, events):
    monkeypatch.setattr(board._writer, "add_scalar", full)
    for update in (1, 2):
        events.train({**RECORD, "update": update}, {})
        events.evaluation("val/set", {"accuracy": 0.5}, update)
        events.examples("val/set", [RESULT], update)
        events.flush()
    assert len(warnings(caplog)) == 1 and "tracker 'tensorboard': left out from here on (No space" in warnings(caplog)[0]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_a_failing_writer_thread_ends_nothing(tmp_path, caplog, board, events, capfd):
    """TensorBoard writes in a thread of its own, which fails where the disk is full."""
    asynchronous = board._writer.file_writer.event_writer._async_writer
    asynchronous._writer.write = full
    for update in range(1, 30):
        events.train({**RECORD, "update": update}, {})
    events.flush()
    assert len(warnings(caplog)) == 1 and "No space left on device" in warnings(caplog)[0]
    assert "Traceback" not in capfd.readouterr().err


def test_a_tensorboard_folder_that_cannot_be_made_is_told(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("in the way")
    made = made_events(tmp_path, registry.build("tracker", "tensorboard"))
    made.train(RECORD, {"text": 0.1})
    made.close()
    assert len(warnings(caplog)) == 1 and "tracker 'tensorboard'" in warnings(caplog)[0]


def test_nothing_is_drawn_where_nobody_asks_or_looks(tmp_path, monkeypatch, board):
    monkeypatch.setattr(pictures, "figure", lambda results: pytest.fail("drawn"))
    made_events(tmp_path, board, num_pictures=0).examples("val/set", [RESULT], 1)
    made_events(tmp_path).examples("val/set", [RESULT], 1)


def test_pictures_that_fail_leave_the_scalars(tmp_path, caplog, board, events, monkeypatch):
    monkeypatch.setattr(pictures, "figure", lambda results: 1 / 0)
    seen = []
    monkeypatch.setattr(board._writer, "add_scalar", lambda *given: seen.append(given))
    for update in (1, 2):
        events.examples("val/set", [RESULT], update)
        events.train({**RECORD, "update": update}, {})
    told = warnings(caplog)
    assert len(told) == 1 and "pictures for trackers: left out from here on (ZeroDivisionError" in told[0]
    assert ("train/loss", 0.5, 2) in seen


def test_a_signal_is_not_swallowed():
    def stop():
        raise Stopped("stopped by SIGTERM")

    with pytest.raises(Stopped):
        cosmetic.Cosmetic("x").attempt(stop)


def test_the_excepthook_of_other_threads_still_tells(capfd, events):
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_full_console_is_told_once(caplog):
    with open("/dev/full", "w") as stream:
        console = Console(file=stream)
        make_tolerant(console)
        make_tolerant(console)
        for _ in range(3):
            console.print("x" * 10_000)
            console.file.flush()
    assert len(warnings(caplog)) == 1 and "standard output cannot be written (No space left on device)" in warnings(caplog)[0]


def test_a_closed_pipe_is_told_once_and_python_can_end(caplog):
    reading, writing_end = os.pipe()
    os.close(reading)
    with os.fdopen(writing_end, "w") as stream:  # closing it flushes once more
        console = Console(file=stream)
        make_tolerant(console)
        for _ in range(3):
            console.print("x" * 10_000)
    assert len(warnings(caplog)) == 1 and "Broken pipe" in warnings(caplog)[0]


def test_another_encoding_loses_a_character_and_no_run():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    tolerant = TolerantStream(stream)
    tolerant.write("a → b ×\n")
    tolerant.flush()
    assert stream.buffer.getvalue() == "a ? b ×\n".encode("latin-1")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space or choose another folder"),
        (errno.EROFS, "make the file system writable or choose another folder"),
        (errno.EACCES, "make it writable or choose another folder"),
        (errno.ENOENT, "put the folder back, which was moved or deleted meanwhile, or choose another folder"),
        (errno.EIO, "(Input/output error); choose another folder"),
    ],
)
def test_the_advice_fits_what_the_system_said(number, advice):
    with pytest.raises(UserError) as error, writing(Path("save/x")):
        raise OSError(number, os.strerror(number))
    line = str(error.value)
    assert advice in line and ("free space" in line) == (number == errno.ENOSPC)


def test_the_results_table_holds_a_kind_a_line_on_80_columns():
    results = {
        f"test/d/{metric}{kind}": 0.5
        for metric in ("accuracy", "ceiling", "prefix_prior", "question_prior")
        for kind in ("", "[answer_type=yes/no]", "[question_type=what color is the]", "[question_type=is a=b]")
    }
    console = Console(width=80, file=io.StringIO())
    (table,) = results_table(results)
    console.print(table)
    first = [line.split("│")[1].strip() for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert first == ["all", "answer_type", "yes/no", "question_type", "what color is the", "is a=b"]
