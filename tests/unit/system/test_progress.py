"""The time left of a long evaluation, by a clock of the test's own."""

import io

import pytest
from rich.console import Console

from pixelbert_plugin.system import progress
from pixelbert_plugin.system.progress import TimeLeft, spoken


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_now_and_then_and_tell_the_time_left(clock):
    output = io.StringIO()
    with TimeLeft(Console(file=output), "test/coco", has_bar=True) as told:
        told.begin(1000)
        for _ in range(90):  # one step a second
            clock[0] += 1
            told.advance(1)
    assert output.getvalue().splitlines() == [
        "test/coco: 0.5 % after 5 s, 17 min left",  # 995 s
        "test/coco: 3.5 % after 35 s, 16 min left",  # 965 s
        "test/coco: 6.5 % after 65 s, 16 min left",  # 935 s
    ]


def test_what_is_over_soon_says_nothing(clock):
    output = io.StringIO()
    with TimeLeft(Console(file=output), "val", has_bar=False) as told:
        told.begin(4)
        for _ in range(4):
            clock[0] += 1.5
            told.advance(1)
    assert output.getvalue() == ""


def test_a_terminal_has_a_bar_unless_another_one_is_there():
    for has_bar in (True, False):
        output = io.StringIO()
        with TimeLeft(Console(file=output, force_terminal=True, width=80), "test/coco", has_bar) as told:
            told.begin(4)
            told.advance(2)
        assert ("test/coco" in output.getvalue() and "50%" in output.getvalue()) == has_bar


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_console_that_fails_ends_nothing(clock, is_terminal):
    output = io.StringIO()
    told = TimeLeft(Console(file=output, force_terminal=is_terminal), "test/coco", has_bar=True)
    output.close()
    with told:
        told.begin(10)
        clock[0] += 60
        told.advance(1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (89, "89 s"), (90, "2 min"), (3599, "60 min"), (12000, "3 h 20 min")]
)
def test_durations_are_spoken(seconds, text):
    assert spoken(seconds) == text
