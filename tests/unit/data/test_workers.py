"""Data-loader workers: what they hand over, and that whatever goes wrong on the way ends the wait with its true cause."""

import ctypes
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pixelbert_plugin.data import handover, workers
from pixelbert_plugin.data.handover import Sender
from pixelbert_plugin.data.reader import Failure, MicroBatch
from pixelbert_plugin.data.workers import ParcelReader, Wait
from pixelbert_plugin.errors import LostProcessError, Stopped, UserError
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.training.trainer import Trainer
from unit.data.test_loader import make_loader, take

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 1 << 14, 1 << 18  # of linux/sched.h and linux/mount.h


def tensors() -> list[torch.Tensor]:
    image = torch.randint(0, 255, (5, 7, 3), dtype=torch.uint8).permute(2, 0, 1)  # as decoders give them
    odd = [torch.tensor(3.5), torch.empty(0, 4), torch.tensor([True, False]), torch.arange(6).view(2, 3).t()]
    return [image, *odd, torch.ones(3, dtype=torch.bfloat16), torch.zeros(1, 1).expand(4, 5)]


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_a_parcel_gives_back_every_tensor_with_its_type_shape_and_order_in_memory(monkeypatch, has_memory_files):
    monkeypatch.setattr(handover, "HAS_MEMORY_FILES", has_memory_files and handover.HAS_MEMORY_FILES)
    sent = {"tensors": tensors(), "text": "x"}
    parcel = Sender(2).send(sent)
    got = parcel.open()
    assert got["text"] == "x" and isinstance(parcel.memory, str if handover.HAS_MEMORY_FILES else bytes)
    for a, b in zip(sent["tensors"], got["tensors"], strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    assert got["tensors"][0].stride() == sent["tensors"][0].stride()
    got["tensors"][0].add_(1)  # the buffer is the receiver's
    assert torch.equal(parcel.open()["tensors"][0], sent["tensors"][0])


@pytest.mark.skipif(not handover.HAS_MEMORY_FILES, reason="memory files are Linux's")
def test_a_sender_holds_one_descriptor_a_batch_and_few_of_them():
    before, sender = len(os.listdir("/proc/self/fd")), Sender(3)
    parcels = [sender.send({"images": tensors() * 20}) for _ in range(9)]
    assert len(os.listdir("/proc/self/fd")) == before + 3
    assert torch.equal(parcels[-3].open()["images"][2], torch.empty(0, 4))
    with pytest.raises(FileNotFoundError, match="the batch is gone"):  # its descriptor's number is another batch's by now
        parcels[0].open()
    for descriptor in sender._held:
        os.close(descriptor)


def test_without_descriptors_or_memory_batches_go_through_the_pipe_and_are_the_same(vqa2_root, monkeypatch):
    whole = take(make_loader(vqa2_root), 0, 3)
    monkeypatch.setattr(handover.os, "memfd_create", lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files")))
    for a, b in zip(whole, take(make_loader(vqa2_root, workers=1), 0, 3), strict=True):
        assert all(torch.equal(x.images, y.images) and x.sample_ids == y.sample_ids for x, y in zip(a, b, strict=True))


def test_what_cannot_be_pickled_is_named(vqa2_root):
    loader = make_loader(vqa2_root, workers=1)
    loader.reader.prepare = lambda batch, seeds: batch.targets.update(odd=lambda: 1)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be sent from a data-loader worker: .*lambda.*samples \[\d+.*num_workers=0"):
        take(loader, 0, 1)
    assert time.monotonic() - began < 20
    assert len(take(make_loader(vqa2_root), 0, 1)[0]) == 3  # in the process itself nothing is sent


def test_too_few_descriptors_are_named_with_the_limit(vqa2_root):
    loader = make_loader(vqa2_root, workers=2)
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)  # the lowest free number
    os.close(spare)
    try:
        for room in (1, 4, 12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + room, former[1]))
            with pytest.raises(
                UserError, match=rf"num_workers=2: too many open files .* limit is {spare + room}; raise it with"
            ):
                take(loader, 0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)


def slow_decode(self, path):
    time.sleep(600)


def test_a_wait_ends_at_its_limit_and_names_what_is_being_read(vqa2_root, monkeypatch):
    loader = make_loader(vqa2_root, workers=1)
    monkeypatch.setattr(type(loader.reader.image), "decode", slow_decode)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.2)
    loader.wait = Wait(timeout_seconds=0.5)
    with pytest.raises(LostProcessError, match=r"within training.timeout_seconds=0.5 \(workers are reading .*COCO_train2014_"):
        take(loader, 0, 1)


def test_sigterm_ends_a_wait_but_not_before_a_batch_that_is_on_its_way(vqa2_root, monkeypatch):
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.2)
    loader = make_loader(vqa2_root, workers=1)
    loader.wait = Wait(is_interrupted=lambda: True)
    assert len(take(loader, 0, 1)[0]) == 3
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(type(loader.reader.image), "decode", slow_decode)
    with pytest.raises(Stopped, match=r"while it waited for data \(workers are reading .*\.jpg"):
        take(loader, 0, 1)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "SIGKILL")])
def test_a_workers_death_names_the_signal_and_the_image_that_it_was_reading(vqa2_root, monkeypatch, caplog, number, name):
    loader = make_loader(vqa2_root, workers=1)
    original = type(loader.reader.image).decode

    def decode(self, path):
        if "000000000105" in str(path):
            os.kill(os.getpid(), number)
        return original(self, path)

    monkeypatch.setattr(type(loader.reader.image), "decode", decode)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.2)
    with pytest.raises(
        UserError, match=rf"again and again: worker \d+ was ended by {name}.* while it read .*000000000105\.jpg"
    ):
        take(loader, 0, 5)
    assert f"was ended by {name}" in caplog.text and "insufficient shared memory" not in caplog.text


def large_images(root, number_of_workers: int) -> list[float]:
    """A sum of each micro-batch of two updates; each of its images alone is larger than a megabyte."""
    loader = make_loader(root, number_of_workers)
    loader.reader.image.decode = lambda path: torch.arange(3 * 600 * 800, dtype=torch.uint8).view(3, 600, 800)
    return [batch.images.sum().item() for update in take(loader, 0, 2) for batch in update]


def read_with_tiny_shm(root, outcome) -> None:
    """In a child with a /dev/shm of its own of 1 MB."""
    torch.set_num_threads(1)  # the parent's other threads are not there in a fork, and would be waited for
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    if failed or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m"):
        outcome.send("not allowed")
    else:
        outcome.send(large_images(root, 2))
    os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
def test_a_small_dev_shm_is_enough(vqa2_root):
    received, sent = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=read_with_tiny_shm, args=(vqa2_root, sent))
    child.start()
    sent.close()
    assert received.poll(60)
    outcome = received.recv()
    child.join()
    if outcome == "not allowed":
        pytest.skip("no right to mount")
    assert outcome == large_images(vqa2_root, 0)


def test_no_room_for_the_queues_is_named(vqa2_root, monkeypatch):
    def no_room(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workers, "DataLoader", no_room)
    with pytest.raises(UserError, match=r"num_workers=1: .*/dev/shm has no room .*--shm-size"):
        take(make_loader(vqa2_root, workers=1), 0, 1)


@pytest.mark.parametrize(("world_size", "is_saved"), [(1, True), (2, False)])
def test_what_is_trained_is_saved_when_a_wait_for_data_ends(world_size, is_saved):
    """By one process; several can only save together."""
    saved = []
    trainer = SimpleNamespace(
        step=SimpleNamespace(processes=SimpleNamespace(world_size=world_size)),
        state=SimpleNamespace(update=3),
        _save=lambda: saved.append(3),
        settle=lambda: saved.append("on the disk"),
        _stopped=lambda when: Stopped(f"stopped {when} update 3"),
    )

    def never(error):
        raise error
        yield

    with pytest.raises(LostProcessError, match="update 3 is saved" if is_saved else "^no batch$"):
        Trainer._next(trainer, never(LostProcessError("no batch")))
    with pytest.raises(Stopped, match="stopped while waiting for data, after update 3" if is_saved else "^a signal$"):
        Trainer._next(trainer, never(Stopped("a signal")))
    assert saved == [3, "on the disk"] * 2 * is_saved


PLUGIN = """
import torch

class Halves:
    def prepare(self, batch, seeds):
        batch.targets["half"] = torch.full((len(batch),), 0.5)
"""


@pytest.fixture
def no_other_plugin(monkeypatch):
    """Other tests' plugins lie in folders that are gone."""
    for name in [name for name in sys.modules if name.startswith(plugins.USER_MODULE)]:
        monkeypatch.delitem(sys.modules, name)


def plugin_loader(root, folder, number_of_workers=0):
    (folder / "halves.py").write_text(PLUGIN)
    plugins.load(str(folder))
    (file,) = [file for file in plugins.user_files() if file.parent == folder.resolve()]
    (module,) = [module for name, module in list(sys.modules.items()) if getattr(module, "__file__", None) == str(file)]
    loader = make_loader(root, number_of_workers)
    loader.reader.prepare = module.Halves().prepare
    return loader, module


def test_a_spawned_worker_loads_the_users_plugin_before_what_is_made_of_it(vqa2_root, tmp_path, no_other_plugin):
    """As unpickled in a process that has not loaded it."""
    loader, module = plugin_loader(vqa2_root, tmp_path)
    function, (files, _, content) = ParcelReader(loader.reader, None).__reduce__()
    del sys.modules[module.__name__]
    with pytest.raises(ModuleNotFoundError, match="pixelbert_user_halves"):
        pickle.loads(content)
    again = function(files, None, content)
    parcel = again[MicroBatch(0, np.array([0, 1]), True)]
    assert not isinstance(parcel, Failure) and parcel.open().batch.targets["half"].tolist() == [0.5, 0.5]


@pytest.mark.slow
def test_spawned_workers_read_with_a_plugin(vqa2_root, tmp_path, monkeypatch, no_other_plugin):
    """As on macOS, where nothing is forked."""
    monkeypatch.setattr(workers, "START_METHOD", "spawn")
    loader, _ = plugin_loader(vqa2_root, tmp_path, 1)
    alone, _ = plugin_loader(vqa2_root, tmp_path)
    for a, b in zip(take(loader, 0, 2), take(alone, 0, 2), strict=True):
        assert all(
            torch.equal(x.images, y.images) and x.targets["half"].tolist() == [0.5] * len(x) for x, y in zip(a, b, strict=True)
        )


def test_a_plugin_that_a_spawned_worker_cannot_load_is_named(vqa2_root, tmp_path, no_other_plugin):
    loader, module = plugin_loader(vqa2_root, tmp_path)
    function, (files, _, content) = ParcelReader(loader.reader, None).__reduce__()
    del sys.modules[module.__name__]
    files[0].unlink()
    reader = pickle.loads(pickle.dumps(function(files, None, content)))
    reader.prepare(0)
    failure = reader[MicroBatch(0, np.array([0, 1]), True)]
    assert isinstance(failure, Failure) and re.search(r"env.user_dir: .*halves\.py", failure.message), failure


def test_what_cannot_be_sent_to_spawned_workers_is_named(vqa2_root, monkeypatch):
    monkeypatch.setattr(workers, "START_METHOD", "spawn")
    with pytest.raises(UserError, match=r"cannot be sent to spawned workers .*lambda.*top of its module"):
        take(make_loader(vqa2_root, workers=1), 0, 1)
