"""The bar: a time left that settles within ten updates, and nothing written by an update itself."""

import io
import random

import pytest
from rich.console import Console

from pixelbert_plugin.training.bar import Bar, Pace


@pytest.mark.parametrize("seed", range(20))
def test_the_time_left_settles_within_ten_updates(seed):
    """A first update of a minute, then half a second, give or take a third: a fifth beside the truth at most."""
    draw, pace = random.Random(seed), Pace()
    assert pace.left(100) is None
    pace.note(60.0)
    assert pace.left(100) == 6000  # nothing else is known
    for update in range(1, 200):
        pace.note(0.5 * draw.uniform(2 / 3, 4 / 3))
        if update >= 9:
            assert pace.left(100) == pytest.approx(50, rel=0.2)
    assert pace.left(100) == pytest.approx(50, rel=0.05)


def test_updates_that_take_minutes_have_a_time_left():
    pace = Pace()
    for _ in range(3):
        pace.note(200.0)
    assert pace.left(3) == 600


class Counted(io.StringIO):
    writes = 0

    def write(self, text):
        self.writes += 1
        return super().write(text)


def test_updates_write_nothing_themselves_and_the_bar_draws_itself_twice_a_second():
    stream = Counted()
    bar = Bar(Console(file=stream, force_terminal=True, width=80), 0, 20_000)
    assert bar._progress.live.refresh_per_second == 2
    bar._progress.live.auto_refresh = False  # no thread: all that is written is by the updates
    with bar:
        before = stream.writes
        for update in range(1, 10_001):
            bar.advance(update, 0.01 * update)
            bar.show(f"loss {update}")
        assert stream.writes == before
        bar._progress.refresh()
        shown = stream.getvalue().splitlines()[-1]
    assert "10000/20000" in shown and "2 min left loss 10000" in " ".join(shown.split())


def test_evaluations_are_no_part_of_an_update():
    """The seconds are those of training, whatever the clock says."""
    bar = Bar(Console(file=io.StringIO(), force_terminal=True, width=80), 0, 100)
    for update in range(1, 6):
        bar.advance(update, 2.0 * update)
    assert bar._pace.left(95) == 190


def test_no_terminal_has_no_bar():
    bar = Bar(Console(file=io.StringIO()), 0, 10)
    with bar:
        bar.advance(1, 1.0)
    assert not bar.is_there
