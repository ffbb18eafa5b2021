"""What changed in a data set between a stop and a resume is named: each change of inputs' table, wherever the files lie."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pixelbert_plugin.data import fingerprint
from pixelbert_plugin.data.fingerprint import changes, fingerprints
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples, collect
from pixelbert_plugin.types import Sample


def plain(root) -> list[Sample]:
    """Three questions about two images."""
    for name, value in (("a", 30), ("b", 200)):
        noise = np.random.default_rng(value).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{name}.png")

    def sample(number, image, text, answer):
        return Sample(
            sample_id=number, image_ids=(image,), images=(root / f"{image}.png",), text=text, answers=(answer,), answer=answer
        )

    return [sample(1, "a", "what?", "red"), sample(2, "a", "how many?", "2"), sample(3, "b", "what?", "blue")]


def found(samples, root, kind: str):
    part = Samples(collect(samples, "test", root), root) if kind == "below root" else samples
    return fingerprints({"train": Mixture("train", {"set": part})})["train/set"]


@pytest.mark.parametrize("kind", ["below root", "list"])
def test_every_change_is_named(tmp_path, kind):
    samples = plain(tmp_path)
    before = found(samples, tmp_path, kind)

    def changed(*others):
        return changes(before, found(list(others), tmp_path, kind))

    first, second, third = samples
    assert changed(*samples) == []
    assert changed(replace(first, text="what is it?"), second, third) == ["texts"]
    assert changed(replace(first, answers=("green",), answer="green"), second, third) == ["answers"]
    assert changed(replace(first, answers=("red", "red")), second, third) == ["answers"]
    assert changed(replace(first, sample_id=9), second, third) == ["ids"]
    assert changed(first, second) == ["2 samples, 3 before", "image files"]
    assert changed(*samples, replace(first, sample_id=4)) == ["4 samples, 3 before"]
    assert changed(first, replace(second, image_ids=("b",), images=third.images), third) == ["images of the samples"]
    Image.new("RGB", (20, 20)).save(tmp_path / "b.png")  # blacked out
    assert changed(*samples) == ["image files"]
    content = bytearray((tmp_path / "b.png").read_bytes())
    before = found(samples, tmp_path, kind)
    content[-20] ^= 1  # of the same size
    (tmp_path / "b.png").write_bytes(content)
    assert changed(*samples) == ["image files"]
    del before["image contents"], before["format"]  # as earlier versions saved it
    before |= {"ids": "another digest", "texts": "another digest"}
    assert changed(*samples) == []
    assert changed(first, second) == ["2 samples, 3 before", "image files"]
    (tmp_path / "b.png").unlink()
    assert changed(*samples) == ["image files"]


def test_a_moved_folder_is_no_change(tmp_path):
    before = found(plain(tmp_path), tmp_path, "below root")
    there = tmp_path / "there"
    there.mkdir()
    assert changes(before, found(plain(there), there, "below root")) == []
    assert found(plain(there), there, "list") == found(plain(tmp_path), tmp_path, "list")


def test_text_boundaries_count():
    """ "ab" + "c" is not "a" + "bc"."""

    def of(*texts):
        samples = [Sample(sample_id=n, image_ids=(1,), images=("x",), text=text) for n, text in enumerate(texts)]
        return fingerprints({"train": Mixture("train", {"set": samples})})["train/set"]

    assert changes(of("ab", "c"), of("a", "bc")) == ["texts"]


def test_files_read_are_few_over_the_whole_set_and_neither_pipes_nor_huge_ones_are_waited_for(tmp_path, monkeypatch):
    samples = [Sample(sample_id=n, image_ids=(n,), images=(tmp_path / f"{n:03}.png",), text="?") for n in range(200)]
    for sample in samples[1:]:
        sample.images[0].write_bytes(b"aaaa")
    os.mkfifo(samples[0].images[0])
    before = found(samples, tmp_path, "list")

    def notices(number: int, content: bytes) -> bool:
        samples[number].images[0].write_bytes(content)
        is_noticed = changes(before, found(samples, tmp_path, "list")) == ["image files"]
        samples[number].images[0].write_bytes(b"aaaa")
        return is_noticed

    read = {number * 200 // 64 for number in range(64)}
    assert [number for number in range(1, 200, 9) if notices(number, b"aaab")] == sorted(read & set(range(1, 200, 9)))
    monkeypatch.setattr(fingerprint, "MAX_BYTES", 3)
    before = found(samples, tmp_path, "list")
    assert not notices(3, b"aaab") and notices(3, b"aaba") and notices(2, b"aaaaa")
