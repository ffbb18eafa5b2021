"""What a checkpoint is to a run, by the key that named it."""

from pathlib import Path

import pytest

from pixelbert_plugin.checkpoint.start import Start

CONTENT = {"started_from": [{"key": "checkpoint.pretrained", "path": "a", "update": 3}], "state": {"update": 7}}


@pytest.mark.parametrize(
    ("key", "is_resumed", "is_new_source"),
    [
        ("checkpoint.pretrained", False, True),
        ("checkpoint.resume", True, False),
        ("checkpoint.resume_file", True, True),
    ],
)
def test_a_checkpoint_is_gone_on_from_or_started_from(key, is_resumed, is_new_source):
    start = Start(Path("b"), key, CONTENT)
    assert start.is_resumed is is_resumed and start.is_pretrained is not is_resumed
    assert start.sources == CONTENT["started_from"] + [{"key": key, "path": "b", "update": 7}] * is_new_source
    assert str(start) == f"{key}='b'"


def test_without_one_a_run_starts_from_random_weights():
    start = Start.read(None, "")
    assert (start.is_resumed, start.is_pretrained, start.sources) == (False, False, [])
    assert start.load_training(None, {}, None).update == 0
