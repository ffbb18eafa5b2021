"""Samples as one block: they give back what was put in, from any iterable, at a few bytes each."""

import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin import registry
from pixelbert_plugin.data import samples as samples_module
from pixelbert_plugin.data.blocks import Block, BlockWriter
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.files import OneType, field
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples, SamplesWriter, collect
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample

DATASETS = ROOT / "datasets"


def official(name: str, root: Path, cache_dir: Path | None = None, **changes) -> Builder:
    """The builder `name` with its defaults.yaml, some options changed."""
    defaults = yaml.safe_load((DATASETS / name / "defaults.yaml").read_text(encoding="utf-8"))["dataset_config"][name]
    options = {**defaults, **changes}
    return registry.build("builder", name, options, f"dataset_config.{name}", data_dir=Path(root), cache_dir=cache_dir)


@given(st.lists(st.text()))
def test_texts_come_back(texts):
    writer = BlockWriter()
    for text in texts:
        writer.append(text)
    assert [writer[row] for row in range(len(writer))] == texts
    found = Block.of(writer.block().arrays("x"), "x")
    assert list(found) == texts and len(found) == len(texts)
    if texts:
        assert found[-1] == texts[-1]
    with pytest.raises(IndexError):
        found[len(texts)]


def test_half_a_surrogate_pair_is_no_text():
    assert field(json.loads(r'{"caption": "a \ud83d b"}'), "caption", Path("x.json"), 0, str) == "a ? b"


def test_an_id_of_two_images_is_refused_before_a_text_is_put_to_the_wrong_one():
    writer = SamplesWriter("dataset_config.x.splits.train", Path("root"))

    def add(image, file):
        writer.add(Sample(sample_id=len(writer), image_ids=(image,), images=(Path("root") / file,), text="a"))

    for image, file in ((7, "a/7.jpg"), (8, "a/8.jpg"), (7, "a/7.jpg")):
        add(image, file)
    assert writer.arrays()["images_of_samples"].tolist() == [0, 1, 0]
    message = r"^datasets: row 3 of dataset_config.x.splits.train: image 7 is a/7.jpg and also b/7.jpg; "
    with pytest.raises(UserError, match=message):
        add(7, "b/7.jpg")


def test_ids_of_a_file_are_all_numbers_or_all_texts():
    numbers, texts = OneType("a.json"), OneType("b.json")
    assert [numbers(value) for value in (5, -(2**63), 7)] == [5, -(2**63), 7] and texts("a") == "a"
    with pytest.raises(UserError, match=r"b.json: id 5 after ids of another type"):
        texts(5)


def test_ids_may_be_numbers_of_any_size_and_texts():
    ids = [5, -(2**63), 2**63, 7, "5", "ä", 0]
    samples = Samples.of([Sample(sample_id=one, image_ids=(one,), images=("x.jpg",), text="a") for one in ids])
    assert [sample.sample_id for sample in samples] == ids == [sample.image_ids[0] for sample in samples]
    assert samples.repeated_id is None
    again = Samples.of([*samples, Sample(sample_id="ä", image_ids=(1,), images=("x.jpg",), text="a"), samples[3]])
    assert again.repeated_id == 7
    assert Samples.of([samples[3], samples[4], *samples]).repeated_id == 7 and Samples.of([samples[4]]).repeated_id is None


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


def made(rows, root=Path("data"), two_images=True, are_labelled=True) -> list[Sample]:
    plain = []
    for number, (left, right, text, answers, answer, groups) in enumerate(rows):
        images = (left, right) if two_images else (left,)
        files = tuple(root / f"images/{image}.jpg" for image in images)
        sample = Sample(sample_id=1000 - number, image_ids=images, images=files, text=text)
        if are_labelled:
            sample = replace(sample, answers=tuple(answers), answer=answer)
            sample.groups = dict(zip(("first", "second"), groups, strict=True)) if groups else {}
        plain.append(sample)
    return plain


@settings(deadline=None)
@given(rows=SAMPLES, two_images=st.booleans(), are_labelled=st.booleans(), root=st.sampled_from(["data", ".", "/somewhere"]))
def test_samples_come_back(rows, two_images, are_labelled, root):
    plain = made(rows, Path("data"), two_images, are_labelled)
    samples = Samples(collect(iter(plain), "here", Path("data")), Path("data"))
    assert list(samples) == plain == [samples[row] for row in range(len(plain))] and len(samples) == len(plain)
    sets = Counter(tuple(sorted(sample.answers)) for sample in plain if sample.answers)
    assert {tuple(sorted(answers)): count for answers, count in samples.answer_sets()} == sets
    assert list(Samples.of(plain)) == list(pickle.loads(pickle.dumps(samples))) == plain
    moved = Samples(collect(made(rows, Path(root), two_images, are_labelled), "here", Path(root)), Path("elsewhere"))
    if root != ".":
        assert list(moved) == made(rows, Path("elsewhere"), two_images, are_labelled)
    assert [samples.text(row) for row in range(len(plain))] == list(samples.texts()) == [sample.text for sample in plain]
    assert samples.text_bytes_M.tolist() == [len(sample.text.encode()) for sample in plain]
    numbers = samples.images_M
    assert len(numbers) == len(plain)
    for index, sample in enumerate(plain):
        same = [other.image_ids == sample.image_ids for other in plain]
        assert (numbers == numbers[index]).tolist() == same
    if plain:
        assert samples[-1] == plain[-1] and isinstance(samples[0].sample_id, int)
        assert json.dumps(samples[0].image_ids)  # plain numbers, not numpy's


def test_texts_with_one_image_and_with_several_may_be_mixed():
    """Numbers are by first use; of each number the table has the images."""
    kinds = [("a",), ("a", "b"), ("c",), ("b",), ("a", "b"), ("b", "a")]
    plain = [
        Sample(sample_id=n, image_ids=ids, images=tuple(Path(f"{name}.png") for name in ids), text="x")
        for n, ids in enumerate(kinds)
    ]
    samples = Samples.of(plain)
    assert list(samples) == plain and samples.images_M.tolist() == [0, 1, 2, 3, 1, 4]
    assert samples.image_paths() == [Path("a.png"), Path("b.png"), Path("c.png")] and samples.num_images == 3
    assert samples.first_image_of_set.tolist() == [0, 0, 2, 1, 1]
    assert [samples.first_with_image(row) for row in range(3)] == [0, 1, 2]


def test_files_beside_the_root_keep_their_own_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [
        Path("data/a.jpg"),
        Path("/data/b.jpg"),
        Path("other/c.jpg"),
        Path("/d.jpg"),
        Path("data/../e.jpg"),
        Path("dataf.jpg"),
    ]
    plain = [Sample(sample_id=n, image_ids=(n,), images=(file,), text="x") for n, file in enumerate(files)]
    found = [sample.images[0] for sample in Samples(collect(plain, "here", Path("data")), Path("data"))]
    assert found == [files[0], files[1], tmp_path / "other/c.jpg", files[3], files[4], tmp_path / "dataf.jpg"]
    assert [sample.images[0] for sample in Samples.of(plain)] == files
    folders = Samples(collect(plain, "here", Path("data")), Path("data")).folders()
    assert set(folders) == {found[row].parent for row in range(len(files))} and len(folders) == 6


def test_samples_take_no_python_objects():
    """100,000 samples: some arrays; a list of Sample would be 300,000 objects and more."""
    plain = (
        Sample(sample_id=number, image_ids=(number // 5,), images=(Path(f"{number // 5}.jpg"),), text=f"text {number}")
        for number in range(100_000)
    )
    arrays = collect(plain, "here")
    assert len(arrays) < 25 and sum(array.nbytes for array in arrays.values()) < 100_000 * 40
    assert Samples(arrays, Path("data"))[77_777].text == "text 77777"


def test_recurring_answers_and_groups_are_kept_once():
    """As VQA has them: ten answers a question, two groups. 110 bytes each were what columns of numbers took."""
    plain = [
        Sample(
            sample_id=458_752_000 + number,
            image_ids=(number // 5,),
            images=(Path(f"COCO_{number // 5:012}.jpg"),),
            text=f"What is the colour of the {number % 1000}?",
            answers=tuple(f"some answer {number * place % 3000}" for place in range(10)),
            answer=f"some answer {number % 3000}",
            groups={"answer_type": "other", "question_type": f"what is the {number % 60}"},
        )
        for number in range(20_000)
    ]
    arrays = collect(plain, "here")
    assert Samples(arrays)[12_345] == plain[12_345]
    assert sum(array.nbytes for array in arrays.values()) < 20_000 * 130


def test_texts_and_labels_come_from_the_block_as_the_samples_have_them(monkeypatch):
    """Over the end of a chunk of rows, for samples without an answer, and where there are none at all."""
    for chunk in (1, 3, 4, 100):
        monkeypatch.setattr(samples_module, "CHUNK", chunk)
        plain = [
            Sample(
                sample_id=row,
                image_ids=(row // 2,),
                images=(Path(f"images/{row // 2}.jpg"),),
                text=f"text {row}",
                answers=tuple("abc"[: row % 4]),
                answer=None if row % 3 == 0 else f"main {row % 2}",
                groups={4: {}, 5: {"other": "kind", "kind": "who"}}.get(row, {"kind": "what"}),
            )
            for row in range(8)
        ]
        plain[4] = replace(plain[4], answers=(), answer=None)
        samples = Samples.of(plain)
        assert list(samples) == plain
        given = Counter(answer for sample in plain for answer in sample.answers)
        main = Counter(sample.answer for sample in plain if sample.answer is not None)
        assert samples.answer_counts() == (given, main) and len(given) == 3 and len(main) == 2
        assert [list(counts) for counts in samples.answer_counts()] == [list(given), list(main)]  # by first use
        assert list(samples.texts()) == [f"text {row}" for row in range(8)]
        for group in ("kind", "what", "other"):  # a group's name, a word that is another's kind, and none
            asked = [(sample.text, sample.groups.get(group, ""), sample.answer) for sample in plain]
            assert list(samples.labelled(group)) == list(Mixture("train", {"a": samples}).labelled(group)) == asked
        kept = np.array([row in (1, 6, 7) for row in range(8)])
        assert list(samples.texts(kept)) == ["text 1", "text 6", "text 7"] and not list(samples.texts(kept & ~kept))
        assert samples.image_paths() == [Path(f"images/{image}.jpg") for image in range(4)]
        assert samples.digests() == Samples.of(plain[:]).digests()
    captions = Samples.of([Sample(sample_id=1, image_ids=(1,), images=(Path("1.jpg"),), text="a dog")])
    assert list(captions.labelled("kind")) == [("a dog", "", None)]
    assert captions.answer_counts() == (Counter(), Counter()) and list(captions.answer_sets()) == []
