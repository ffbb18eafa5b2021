"""The cache of arrays: it gives back what was put in and follows its sources; a damaged one is made again."""

import fcntl
import json
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest

from pixelbert_plugin.data import cache
from pixelbert_plugin.data.samples import Samples, collect
from unit.data.test_samples import made

ROWS = [(1, 2, "ein Hund — 狗", ["yes", "no"], "yes", ("a", "b")), (1, 1, "", [], None, None)]


def read(folder, source, calls, options=("train", 1)):
    def make():
        calls.append(source.read_text())
        return writer_arrays()

    return Samples(cache.cached(folder, "mine", list(options), [source], make), Path("data"))


def writer_arrays():
    return collect(made(ROWS), "here", Path("data"), [Path("data/without.jpg")])


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.json"
    path.write_text("one")
    return path


def test_the_cache_gives_the_same_samples_and_follows_its_sources(tmp_path, source):
    calls, folder = [], tmp_path / "cache"
    fresh = list(Samples(writer_arrays(), Path("data")))
    assert list(read(folder, source, calls)) == list(read(folder, source, calls)) == fresh and calls == ["one"]
    read(folder, source, calls, options=("train", 2))
    assert len(calls) == 2
    source.write_text("two!")
    read(folder, source, calls)
    assert calls[-1] == "two!" and len(calls) == 3
    os.utime(source, ns=(1, 1))  # another time, the same size
    read(folder, source, calls)
    assert len(calls) == 4 and len(list(folder.iterdir())) == 4  # and nothing is left lying aside
    assert list(read(None, source, calls)) == fresh and len(calls) == 5


def test_cached_arrays_are_mapped_not_read(tmp_path, source):
    read(tmp_path, source, [])
    samples = read(tmp_path, source, [])
    base = samples.images_M
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap) and not samples.images_M.flags.writeable
    assert list(samples.left_out) == ["without.jpg"]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def change_digests(path: Path) -> None:
    content = json.loads(path.read_text())
    content["files"].pop("records_bytes")
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("records_bytes.npy", flip_a_byte, "records_bytes.npy is torn or altered"),
        ("records_bytes.npy", lambda path: path.write_bytes(path.read_bytes()[:-1]), "records_bytes.npy is torn or altered"),
        ("images_of_samples.npy", Path.unlink, "not as it was written"),
        ("manifest.json", Path.unlink, "not as it was written"),
        ("manifest.json", lambda path: path.write_text("{"), "not as it was written"),
        ("manifest.json", lambda path: path.write_text("[]"), "not as it was written"),
        ("manifest.json", lambda path: path.write_text('{"files": [], "digest": ""}'), "not as it was written"),
        ("manifest.json", lambda path: path.write_text('{"files": {"a": 3}, "digest": ""}'), "not as it was written"),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe{"), "not as it was written"),
        ("manifest.json", change_digests, "manifest.json is altered"),
    ],
)
def test_a_damaged_cache_is_made_again_with_a_warning(tmp_path, source, caplog, name, damage, reason):
    calls, folder = [], tmp_path / "cache"
    fresh = list(read(folder, source, calls))
    damage(next(folder.iterdir()) / name)
    with caplog.at_level(logging.WARNING):
        assert list(read(folder, source, calls)) == fresh and len(calls) == 2
    assert reason in caplog.text and str(folder) in caplog.text
    caplog.clear()
    assert list(read(folder, source, calls)) == fresh and len(calls) == 2 and not caplog.records


def test_a_cache_that_cannot_be_written_only_warns(tmp_path, source, caplog):
    (tmp_path / "file").write_text("no folder")
    assert len(read(tmp_path / "file" / "cache", source, [])) == len(ROWS)
    assert "cannot be written" in caplog.text


def test_any_flipped_bit_of_a_cache_is_noticed(tmp_path, source, caplog):
    """Never used, whichever file and bit it is."""
    folder, draw = tmp_path / "cache", random.Random(1)
    fresh = list(read(folder, source, []))
    (made,) = folder.iterdir()
    for path in sorted(made.iterdir()):
        content = path.read_bytes()
        for _ in range(4):
            copy = bytearray(content)
            copy[draw.randrange(len(copy))] ^= 1 << draw.randrange(8)
            path.write_bytes(copy)
            calls = []
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert list(read(folder, source, calls)) == fresh
            if calls:
                assert "not as it was written" in caplog.text
            else:  # a bit of the manifest's white space, or of its indentation
                assert path.name == "manifest.json" and json.loads(copy) == json.loads(content)
                path.write_bytes(content)


def test_what_a_killed_writer_left_is_deleted_and_what_another_is_writing_is_not(tmp_path, source):
    folder, stranger = tmp_path / "cache", tmp_path / "cache/.mine-and-only-mine"
    orphan, busy = (folder / f".mine-0123456789abcdef-{number}-01234567" for number in (1, 2))
    for path in (orphan, busy, stranger):
        path.mkdir(parents=True)
        (path / "records_bytes.npy").write_text("half of it")
    (folder / ".mine-0123456789abcdef-3-01234567").write_text("a file")
    lock = os.open(busy, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    read(folder, source, [])
    os.close(lock)
    assert not orphan.exists() and busy.exists() and stranger.exists()
    (folder / "mine-0").mkdir()
    read(folder, source, [], options=["another"])
    assert not busy.exists() and stranger.exists() and (folder / "mine-0").exists()


def test_a_full_disk_in_the_midst_of_writing_only_warns_and_leaves_nothing(tmp_path, source, caplog, monkeypatch):
    def full(path, values, allow_pickle):
        if path.name == "records_bytes.npy":
            raise OSError(28, "No space left on device")
        path.write_bytes(b"some")

    monkeypatch.setattr(cache.np, "save", full)
    assert len(read(tmp_path / "cache", source, [])) == len(ROWS)
    assert "cannot be written (No space left on device); going on without a cache" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_processes_may_write_at_once(tmp_path, source, monkeypatch):
    """Another process finishes the same folder while this one reads the files."""
    calls, folder = [], tmp_path / "cache"

    def make():
        if len(calls) == 0:
            calls.append("other")
            cache.cached(folder, "mine", [], [source], writer_arrays)
        return writer_arrays()

    fresh = list(Samples(writer_arrays(), Path("data")))
    assert list(Samples(cache.cached(folder, "mine", [], [source], make), Path("data"))) == fresh
    assert [path.name.startswith("mine-") for path in folder.iterdir()] == [True]
    # and one that cannot replace the other's folder uses its own copy
    monkeypatch.setattr(cache.shutil, "rmtree", lambda path, ignore_errors: None)
    arrays = cache._save(next(folder.glob("mine-*")), writer_arrays())
    assert list(Samples(arrays, Path("data"))) == fresh
