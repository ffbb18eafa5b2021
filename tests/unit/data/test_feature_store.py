"""Features on the disk: whole or not there, of one image and one encoder, within a bound."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pixelbert_plugin import errors
from pixelbert_plugin.data import feature_store
from pixelbert_plugin.data.feature_store import HEAD, FeatureStore

GB = 10**9
NAME = "0123456789abcdef0123456789abcdef"


def features(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def name(number: int) -> str:
    return f"{number:032x}"


def files(folder) -> list:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_read_is_what_was_written(tmp_path, dtype):
    values = features(dtype=dtype)
    store = FeatureStore(tmp_path, "weights", GB)
    assert store.find(NAME) is None
    assert store.write(NAME, values.transpose(0, 1))  # however it lies in memory
    found = FeatureStore(tmp_path, "weights", GB).read(NAME)
    assert found.dtype == dtype and torch.equal(found, values.transpose(0, 1))
    content = (tmp_path / "weights" / "01" / NAME).read_bytes()
    assert json.loads(content[:HEAD])["shape"] == [3, 2, 8]
    if dtype == torch.float32:  # by another way
        assert np.array_equal(np.frombuffer(content[HEAD:], np.float32), values.transpose(0, 1).numpy().ravel())


def test_a_name_is_of_path_size_and_time(tmp_path):
    store, image = FeatureStore(tmp_path, "weights", GB), tmp_path / "a.jpg"
    assert store.name(image) is None and not store.holds(image)
    image.write_bytes(b"one")
    os.utime(image, ns=(1, 1))
    first = store.name(image)
    other = tmp_path / "b.jpg"
    shutil.copy2(image, other)
    assert store.name(other) != first
    image.write_bytes(b"more")
    os.utime(image, ns=(1, 1))
    longer = store.name(image)
    os.utime(image, ns=(2, 2))
    assert len({first, longer, store.name(image)}) == 3
    image.write_bytes(b"one")
    os.utime(image, ns=(1, 1))
    assert store.name(image) == first
    store.write(first, features())
    assert store.holds(image)
    assert store.name(tmp_path / "a\0b") is None


def test_what_is_torn_altered_or_anothers_is_not_used(tmp_path):
    store = FeatureStore(tmp_path, "weights", GB)
    store.write(NAME, features())
    path = tmp_path / "weights" / "01" / NAME
    whole = path.read_bytes()
    head = json.loads(whole[:HEAD])
    for damaged in (
        b"",
        whole[: HEAD - 5],
        whole[:-1],
        whole + b"x",
        whole[:-4] + b"abcd",
        b"no JSON".ljust(HEAD) + whole[HEAD:],
        json.dumps({**head, "shape": [3, 2, 8]}).encode().ljust(HEAD) + whole[HEAD:],
        json.dumps({**head, "shape": [6, 8]}).encode().ljust(HEAD) + whole[HEAD:],
        json.dumps({**head, "dtype": "int32"}).encode().ljust(HEAD) + whole[HEAD:],
        json.dumps([1]).encode().ljust(HEAD) + whole[HEAD:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} is torn or altered"):
            store.read(NAME)
        assert store.find(NAME) is None
    path.write_bytes(whole)
    assert torch.equal(store.read(NAME), features())
    other = NAME.replace("f", "e")
    shutil.copy(path, path.with_name(other))
    (tmp_path / "others" / "01").mkdir(parents=True)
    shutil.copy(path, tmp_path / "others" / "01" / NAME)
    assert store.find(other) is None and FeatureStore(tmp_path, "others", GB).find(NAME) is None


def test_the_bound_is_of_all_files_and_said_once(tmp_path, caplog):
    size = HEAD + features().nbytes
    FeatureStore(tmp_path, "earlier", GB).write(NAME, features())
    store = FeatureStore(tmp_path, "weights", int(4.5 * size))
    assert [store.write(name(number), features()) for number in range(6)] == [True, True, True, False, False, False]
    assert sum(path.stat().st_size for path in files(tmp_path)) == 4 * size
    assert len(caplog.messages) == 1 and f"{tmp_path} is full" in caplog.text and "env.max_features_gb" in caplog.text
    assert torch.equal(store.read(name(2)), features()) and store.find(name(3)) is None


def test_a_disk_is_not_filled(tmp_path, caplog, monkeypatch):
    size = HEAD + features().nbytes
    disk = SimpleNamespace(total=100 * size, free=8 * size)
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: disk)
    store = FeatureStore(tmp_path / "later", "weights", GB)
    assert store.room() == 3 * size
    disk.free = 5 * size
    assert store.room() == 0 and not store.write(NAME, features()) and "is full" in caplog.text


def test_several_writers_share_the_room(tmp_path):
    size = HEAD + features().nbytes
    stores = [FeatureStore(tmp_path, "weights", 40 * size, writers=2) for _ in range(2)]
    for number in range(60):
        stores[number % 2].write(name(number), features())
    assert 38 * size <= sum(path.stat().st_size for path in files(tmp_path)) <= 41 * size


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    store = FeatureStore(tmp_path / "file" / "features", "weights", GB)
    assert not store.write(NAME, features()) and not store.write(NAME, features()) and store.find(NAME) is None
    assert len(caplog.messages) == 1 and "cannot be written (Not a directory)" in caplog.text


def _killed_while_it_writes(folder) -> None:
    errors.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    FeatureStore(folder, "weights", GB).write(NAME, features())


def test_a_killed_writer_leaves_nothing_that_is_used_and_it_is_deleted_in_time(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_killed_while_it_writes, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [aside] = files(tmp_path)
    store = FeatureStore(tmp_path, "weights", GB)
    assert aside.name.startswith(".") and store.find(NAME) is None
    store.room()
    assert files(tmp_path) == [aside]  # another run may be writing it
    os.utime(aside, (time.time() - 4000,) * 2)
    store.room()
    assert not files(tmp_path)
    assert store.write(NAME, features()) and torch.equal(store.read(NAME), features())


def _write_all(folder, barrier) -> None:
    store = FeatureStore(folder, "weights", GB, writers=2)
    barrier.wait()
    for number in range(50):
        store.write(name(number), features(number))


def test_two_processes_write_the_same(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_write_all, args=(tmp_path, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    store = FeatureStore(tmp_path, "weights", GB)
    assert all(torch.equal(store.read(name(number)), features(number)) for number in range(50))
    assert len(files(tmp_path)) == 50
