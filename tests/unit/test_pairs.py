"""Pairs as columns: they give back what was put in, from memory and from the cache; a damaged cache is made again."""

import fcntl
import json
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin import registry
from pixelbert_plugin.data import cache, pairs
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.columns import IdWriter, TextWriter, column
from pixelbert_plugin.data.pairs import Pairs, PairsWriter, image_paths, labels, texts
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample

DATASETS = Path(__file__).parent.parent.parent / "datasets"


def official(name: str, root: Path, cache_dir: Path | None = None, **changes) -> Builder:
    """The builder `name` with its defaults.yaml, some options changed."""
    defaults = yaml.safe_load((DATASETS / name / "defaults.yaml").read_text(encoding="utf-8"))["dataset_config"][name]
    options = {**defaults, **changes}
    return registry.build("builder", name, options, f"dataset_config.{name}", data_dir=Path(root), cache_dir=cache_dir)


@given(st.lists(st.text()))
def test_texts_come_back(texts):
    writer = TextWriter()
    for text in texts:
        writer.append(text)
    found = column(writer.arrays("x"), "x")
    assert list(found) == texts and len(found) == len(texts)
    if texts:
        assert found[-1] == texts[-1]
    with pytest.raises(IndexError):
        found[len(texts)]


def test_half_a_surrogate_pair_is_no_text():
    writer = TextWriter()
    writer.append(json.loads(r'"a \ud83d b"'))
    assert list(column(writer.arrays("x"), "x")) == ["a ? b"]


def test_an_id_of_two_images_is_refused_before_a_text_is_put_to_the_wrong_one():
    writer = PairsWriter("dataset_config.x.splits.train")
    assert [writer.image(7, "a/7.jpg"), writer.image(8, "a/8.jpg"), writer.image(7, "a/7.jpg")] == [0, 1, 0]
    with pytest.raises(UserError, match=r"^dataset_config.x.splits.train: image 7 is a/7.jpg and also b/7.jpg; "):
        writer.image(7, "b/7.jpg")


def test_ids_are_all_numbers_or_all_texts():
    numbers, texts = IdWriter("a.json"), IdWriter("b.json")
    for value in (5, -(2**63), 7):
        numbers.append(value)
    assert numbers.arrays("ids")["ids"].tolist() == [5, -(2**63), 7]
    texts.append("a")
    with pytest.raises(UserError, match=r"b.json: id 5 after ids of another type"):
        texts.append(5)
    with pytest.raises(UserError, match=r"a.json: id 9223372036854775808 does not fit into 64 bits"):
        numbers.append(2**63)


WORDS = st.text(max_size=5)
SAMPLES = st.lists(
    st.tuples(
        st.integers(0, 6),  # left image
        st.integers(0, 6),  # right image
        WORDS,
        st.lists(WORDS, max_size=4),
        st.none() | WORDS,
        st.none() | st.tuples(WORDS, WORDS),
    ),
    max_size=12,
)


def make_pairs(rows, root=Path("data"), two_images=True, are_labelled=True) -> tuple[Pairs, list[Sample]]:
    """The columns, and the same samples as a plain list."""
    writer, plain = PairsWriter("here", ("first", "second")), []
    for number, (left, right, text, answers, answer, groups) in enumerate(rows):
        images = (left, right) if two_images else (left,)
        writer.add(1000 - number, tuple(writer.image(image, f"images/{image}.jpg") for image in images), text)
        sample = Sample(
            sample_id=1000 - number, image_ids=images, images=tuple(root / f"images/{image}.jpg" for image in images), text=text
        )
        if are_labelled:
            writer.label(tuple(answers), answer, groups or ())
            sample.answers, sample.answer = tuple(answers), answer
            sample.groups = dict(zip(("first", "second"), groups, strict=True)) if groups else {}
        plain.append(sample)
    return Pairs(writer.arrays(), root), plain


@settings(deadline=None)
@given(rows=SAMPLES, two_images=st.booleans(), are_labelled=st.booleans())
def test_samples_come_back(rows, two_images, are_labelled):
    pairs, plain = make_pairs(rows, two_images=two_images, are_labelled=are_labelled)
    assert list(pairs) == plain and len(pairs) == len(plain)
    assert pairs.ids_M.tolist() == [sample.sample_id for sample in plain]
    numbers = pairs.image_numbers_M
    assert len(numbers) == len(plain)
    for index, sample in enumerate(plain):
        same = [other.image_ids == sample.image_ids for other in plain]
        assert (numbers == numbers[index]).tolist() == same
    if plain:
        assert pairs[-1] == plain[-1] and isinstance(pairs[0].sample_id, int)
        assert json.dumps(pairs[0].image_ids)  # plain numbers, not numpy's


ROWS = [(1, 2, "ein Hund — 狗", ["yes", "no"], "yes", ("a", "b")), (1, 1, "", [], None, None)]


def read(folder, source, calls, options=("train", 1)):
    def make():
        calls.append(source.read_text())
        return writer_arrays()

    return Pairs(cache.cached(folder, "mine", list(options), [source], make), Path("data"))


def writer_arrays():
    writer = PairsWriter("here", ("first", "second"))
    for number, (left, right, text, answers, answer, groups) in enumerate(ROWS):
        writer.add(number, tuple(writer.image(image, f"{image}.jpg") for image in (left, right)), text)
        writer.label(tuple(answers), answer, groups or ())
    return writer.arrays()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.json"
    path.write_text("one")
    return path


def test_the_cache_gives_the_same_samples_and_follows_its_sources(tmp_path, source):
    calls, folder = [], tmp_path / "cache"
    fresh = list(Pairs(writer_arrays(), Path("data")))
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


def test_cached_columns_are_mapped_not_read(tmp_path, source):
    read(tmp_path, source, [])
    pairs = read(tmp_path, source, [])
    base = pairs.image_rows_MN
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap) and not pairs.image_rows_MN.flags.writeable


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def change_digests(path: Path) -> None:
    content = json.loads(path.read_text())
    content["files"].pop("texts_bytes")
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("texts_bytes.npy", flip_a_byte, "texts_bytes.npy is torn or altered"),
        ("texts_bytes.npy", lambda path: path.write_bytes(path.read_bytes()[:-1]), "texts_bytes.npy is torn or altered"),
        ("image_rows.npy", Path.unlink, "not as it was written"),
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
        (path / "texts_bytes.npy").write_text("half of it")
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
        if path.name == "texts_bytes.npy":
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

    fresh = list(Pairs(writer_arrays(), Path("data")))
    assert list(Pairs(cache.cached(folder, "mine", [], [source], make), Path("data"))) == fresh
    assert [path.name.startswith("mine-") for path in folder.iterdir()] == [True]
    # and one that cannot replace the other's folder uses its own copy
    monkeypatch.setattr(cache.shutil, "rmtree", lambda path, ignore_errors: None)
    arrays = cache._save(next(folder.glob("mine-*")), writer_arrays())
    assert list(Pairs(arrays, Path("data"))) == fresh


def test_samples_take_no_python_objects():
    """100,000 samples: a dozen arrays; a list of Sample would be 300,000 objects and more."""
    writer = PairsWriter("here")
    for number in range(100_000):
        writer.add(number, (writer.image(number // 5, f"{number // 5}.jpg"),), f"text {number}")
    arrays = writer.arrays()
    assert len(arrays) < 12 and sum(array.nbytes for array in arrays.values()) < 100_000 * 40
    assert Pairs(arrays, Path("data"))[77_777].text == "text 77777"


def test_texts_and_labels_come_from_the_columns_as_the_samples_have_them(monkeypatch):
    """Over the end of a block of rows, for samples without an answer, and for those of a builder's own."""
    monkeypatch.setattr(pairs, "ROWS", 3)
    writer = PairsWriter("questions", ("kind",))
    for row in range(8):
        writer.add(row, (writer.image(row // 2, f"{row // 2}.jpg"),), f"text {row}")
        writer.label(tuple("abc"[: row % 4]), None if row % 3 == 0 else f"main {row % 2}", ("what",))
    columns = Pairs(writer.arrays(), Path("images"))
    samples = list(columns)
    expected = [(sample.answers, sample.answer) for sample in samples]
    assert len(set(expected)) > 4 and ((), None) in expected
    for each in (columns, samples):
        assert list(texts(each)) == [f"text {row}" for row in range(8)]
        assert list(labels(each)) == expected
        assert image_paths(each) == [Path(f"images/{image}.jpg") for image in range(4)]
    writer = PairsWriter("captions")
    writer.add(1, (writer.image(1, "1.jpg"),), "a dog")
    assert list(labels(Pairs(writer.arrays(), Path("images")))) == [((), None)]
