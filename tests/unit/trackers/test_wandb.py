"""Weights & Biases offline: no network, no account; what was given lies in its file."""

import importlib.util
import json
import struct
from collections.abc import Iterator

import pytest
from matplotlib.figure import Figure

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from unit.training.test_tracking import tracked

BLOCK = 32768  # of the file, which is LevelDB's log after a head of seven bytes


def records(path) -> Iterator[bytes]:
    """What the file holds: heads (checksum, length, kind) and contents, in blocks. Kind 1: whole, 4: a last part."""
    content, at, parts = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # no room for a head
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0:
            break
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def logged(folder) -> list[dict]:
    """The rows of `log`, of every run that lies there."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for content in records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


@pytest.mark.slow
def test_offline_everything_is_written(tmp_path):
    wandb = pytest.importorskip("wandb", reason="pip install 'pixelbert_plugin[wandb]'")
    tracker = registry.build("tracker", "wandb", {"mode": "offline"})
    tracker.begin(tracked(tmp_path))
    tracker.scalars({"train/loss": 2.5}, 1)
    tracker.scalars({"val/x/accuracy[kind=yes/no]": 0.5}, 2)
    tracker.texts({"val/words": "| a |"}, 2)
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    tracker.picture("val/right", figure, 2)
    tracker.final({"val/x/accuracy": 0.75})
    tracker.close()
    wandb.teardown()  # as at the end of a program: its own process writes what is left
    rows = logged(tmp_path)
    assert [row["update"] for row in rows] == [1, 2, 2, 2]
    assert rows[0]["train/loss"] == 2.5 and rows[1]["val/x/accuracy[kind=yes/no]"] == 0.5
    assert len(list((tmp_path / "wandb").rglob("*.png"))) == 1
    first = (tmp_path / "wandb_run_id.txt").read_text()
    for resumed, is_same in ((2, True), (0, False)):
        again = registry.build("tracker", "wandb", {"mode": "disabled"})
        again.begin(tracked(tmp_path, resumed_update=resumed))
        again.close()
        assert ((tmp_path / "wandb_run_id.txt").read_text() == first) is is_same


def test_without_the_package_it_is_one_line_before_any_work(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb is not installed; pip install 'pixelbert_plugin\[wandb\]'"):
        registry.build("tracker", "wandb", {})
