"""What processes tell each other: in one process nothing, in several the same outcome everywhere."""

import json
import pickle

import pytest
import torch
from preloaded import script, together

from pixelbert_plugin.commands import command
from pixelbert_plugin.distributed.processes import ALONE, is_loss
from pixelbert_plugin.errors import LostProcessError, NonFiniteLossError, UserError
from pixelbert_plugin.registry.schema import ConfigError

SEVERAL = """
import json, os, sys
import torch
from pixelbert_plugin.distributed.processes import connected
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError

def fail(rank, processes):
    if processes.rank in rank:
        raise ConfigError("a.key", f"wrong in {processes.rank}")
    return processes.rank

def outcome(function):
    try:
        return function()
    except Exception as error:
        return [type(error).__name__, str(error), error.exit_status, error.is_told]

with connected(torch.device("cpu"), 60, False) as p:
    order = []
    found = {
        "sum": p.sum(torch.tensor([1.0, p.rank])).tolist(),
        "any": [p.any(p.rank == 1), p.any(False)],
        "gather": p.gather(p.rank * 10),
        "on_main": p.on_main(lambda: "main" if p.rank == 0 else "other"),
        "main_fails": outcome(lambda: p.on_main(lambda: fail([0, 1, 2], p))),
        "one_fails": outcome(lambda: p.together(lambda: fail([1], p))),
        "all_fail": outcome(lambda: p.together(lambda: fail([0, 1, 2], p))),
        "main_first": p.main_first(lambda: p.rank),
        "first_fails": outcome(lambda: p.main_first(lambda: fail([0], p))),
        "later_fails": outcome(lambda: p.main_first(lambda: fail([2], p))),
    }
    open(f"{sys.argv[1]}/{p.rank}.json", "w").write(json.dumps(found))
"""


def test_three_processes_agree(tmp_path):
    (tmp_path / "several.py").write_text(SEVERAL)
    together(3, script, [tmp_path / "several.py", tmp_path], tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [f["sum"] for f in found] == [[3.0, 3.0]] * 3
    assert [f["any"] for f in found] == [[True, False]] * 3
    assert [f["gather"] for f in found] == [[0, 10, 20], None, None]
    assert [f["on_main"] for f in found] == ["main"] * 3
    assert [f["main_first"] for f in found] == [0, 1, 2]
    told = {"main_fails": 0, "one_fails": 1, "all_fail": 0, "first_fails": 0, "later_fails": 2}  # by which process
    for name, teller in told.items():
        for rank in range(3):
            kind, message, status, is_told = found[rank][name]
            assert message.endswith(f"wrong in {teller}") and status == 2 and is_told is (rank != teller)
            assert kind == ("ConfigError" if rank == teller else "RunError")


def test_alone_nothing_is_sent():
    assert ALONE.is_main and ALONE.any(True) and not ALONE.any(False) and ALONE.gather(3) == [3]
    assert ALONE.on_main(lambda: 4) == ALONE.together(lambda: 4) == ALONE.main_first(lambda: 4) == 4
    assert ALONE.sum(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(UserError):
        ALONE.on_main(lambda: (_ for _ in ()).throw(UserError("x")))


@pytest.mark.parametrize("error", [ConfigError("a.b", "wrong"), NonFiniteLossError("nan"), LostProcessError("gone")])
def test_an_error_ends_another_process_alike(error):
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) and copy.exit_status == error.exit_status


def test_only_torchs_own_errors_are_taken_for_a_loss():
    assert is_loss(RuntimeError("[…/gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert is_loss(torch.distributed.DistBackendError("x"))
    assert not is_loss(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) and not is_loss(UserError("timed out"))


def test_each_error_is_told_once_a_machine_before_the_processes_are_connected(monkeypatch, capsys):
    def fail():
        raise UserError("wrong")

    for local, expected in (("0", "error: wrong\n"), ("1", "")):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert command.exit_status(fail, False, "") == 2
        assert capsys.readouterr().err == expected
