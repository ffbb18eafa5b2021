"""What is left of torchrun's variables in an environment without torchrun: one line, before anything is waited for."""

import pytest

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.system import launched

WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "abc"}, "RANK='abc': is no whole number; torchrun sets"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE='': is no whole number"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 is set, but RANK is not"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2 is set, but MASTER_ADDR is not"),
        ({"WORLD_SIZE": "0"}, "RANK=0: is not among the processes of WORLD_SIZE=0"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2: is not among the processes of WORLD_SIZE=2"),
        ({**WHOLE, "MASTER_PORT": "tcp"}, "MASTER_PORT='tcp': is no whole number"),
    ],
)
def test_halves_are_named(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        launched.place(is_connected=False)


def test_what_torchrun_sets_is_taken(monkeypatch):
    assert launched.place(is_connected=False) == (1, 0)
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert launched.place(is_connected=False) == (2, 1)
    monkeypatch.delenv("MASTER_ADDR")
    assert launched.place(is_connected=True) == (2, 1)  # a program that has connected them itself
