"""A table of one's own: columns, splits, ids, answers and images; what is wrong in it is named with its row."""

import base64
import csv
import http.server
import io
import json
import logging
import random
import threading
from pathlib import Path

import pytest
from conftest import draw_image

from pixelbert_plugin import registry
from pixelbert_plugin.data import fingerprint, unpacked
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.errors import UserError

KEY = "dataset_config.table"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """The folder `photos` with 0.png … 19.png, all different."""
    root = tmp_path_factory.mktemp("table")
    (root / "photos").mkdir()
    for number in range(20):
        draw_image(root / f"photos/{number}.png", ("red", "green", "blue")[number % 3], number, (40 + number, 30))
    return root


@pytest.fixture
def root(tmp_path, pictures) -> Path:
    (tmp_path / "photos").symlink_to(pictures / "photos")
    return tmp_path


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def build(root: Path, content: str | bytes | list | None = None, name: str = "t.csv", cache: bool = True, **options):
    if content is not None:
        text = as_csv(content) if isinstance(content, list) else content
        (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    if "splits" not in options:
        options.setdefault("table", name)
    options = {"images": "photos", **options}
    return registry.build("builder", "table", options, KEY, data_dir=root, cache_dir=root / "cache" if cache else None)


def everything(builder) -> list:
    return [sample for split in ("train", "val", "test") if builder.has_split(split) for sample in builder.samples(split)]


QUESTIONS = [
    {"image": f"{number}.png", "question": question, "answer": answer}
    for number in range(20)
    for question, answer in (
        ("what color is it?", ("red", "green", "blue")[number % 3]),
        ("is it red?", "no" if number % 3 else "yes"),
    )
]
ONE = [{"image": "0.png", "question": "what?", "answer": "red"}]
ALL_TRAIN = {"shares": {"val": 0, "test": 0}}


def test_questions_by_share(root):
    builder = build(root, QUESTIONS)
    parts = {split: builder.samples(split) for split in ("train", "val", "test")}
    assert {split: (len(part), part.num_images) for split, part in parts.items()} == {
        "train": (32, 16),
        "val": (4, 2),
        "test": (4, 2),
    }
    images = [part.image_names() for part in parts.values()]
    assert not images[0] & images[1] and not images[1] & images[2] and not images[0] & images[2]
    sample = parts["val"][0]
    number = int(sample.image_ids[0].removesuffix(".png"))
    assert sample.text == "is it red?" and sample.answers == (sample.answer,) == ("no" if number % 3 else "yes",)
    assert sample.images == (root / f"photos/{number}.png",) and sample.sample_id == f"{number}.png#1"
    assert parts["val"][1].text == "what color is it?" and parts["val"][1].sample_id == f"{number}.png#2"


def test_the_order_of_the_rows_changes_nothing(root):
    first = everything(build(root, QUESTIONS))
    for seed in range(3):
        shuffled = random.Random(seed).sample(QUESTIONS, len(QUESTIONS))
        assert everything(build(root, shuffled)) == first


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet"])
def test_every_format_gives_the_same(root, name):
    if name == "t.parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(QUESTIONS), root / name)
        content = None
    else:
        content = {
            "t.csv": as_csv(QUESTIONS),
            "t.tsv": as_csv(QUESTIONS).replace(",", "\t"),
            "t.jsonl": "".join(json.dumps(row) + "\n" for row in QUESTIONS),
            "t.json": json.dumps(QUESTIONS),
        }[name]
    assert everything(build(root, content, name)) == everything(build(root, QUESTIONS, "other.csv"))


def test_other_names_and_groups(root):
    rows = [{"File Name": "0.png", "Frage": "Was?", "Antwort": "rot", "Art": "Farbe", "n": 1}]
    columns = {"image": "file name", "question": "Frage", "answer": "Antwort", "groups": ["Art", "n"]}
    (sample,) = build(root, rows, columns=columns, **ALL_TRAIN).samples("train")
    assert (sample.text, sample.answer, sample.groups) == ("Was?", "rot", {"Art": "Farbe", "n": "1"})


def test_ids_are_those_of_the_table(root):
    rows = [{**row, "id": number} for number, row in enumerate(QUESTIONS[:6])]
    found = build(root, rows, **ALL_TRAIN).samples("train")
    assert {sample.sample_id: sample.image_ids[0] for sample in found} == {n: f"{n // 2}.png" for n in range(6)}


def test_several_answers(root):
    rows = [{"image": "0.png", "question": "what?", "answers": "red|dark red|red"}]
    (sample,) = build(root, rows, answer_separator="|", **ALL_TRAIN).samples("train")
    assert sample.answers == ("red", "dark red", "red") and sample.answer == "red"
    rows = [{**rows[0], "answer": "dark red"}]
    (sample,) = build(root, rows, answer_separator="|", **ALL_TRAIN).samples("train")
    assert sample.answers == ("red", "dark red", "red") and sample.answer == "dark red"


def test_captions_may_be_a_list(root):
    lines = [{"image": "0.png", "caption": ["a disc", "", "a red disc"]}, {"image": "1.png", "caption": "green"}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    found = build(root, text, "t.jsonl", **ALL_TRAIN).samples("train")
    assert sorted((sample.sample_id, sample.text) for sample in found) == [
        ("0.png#1", "a disc"),
        ("0.png#2", "a red disc"),
        ("1.png#1", "green"),
    ]
    assert all(sample.answers == () and sample.answer is None for sample in found)


def test_pairs(root):
    rows = [
        {"left": "0.png", "right": "1.png", "statement": "both are red", "label": "0"},
        {"left": "0.png", "right": "3.png", "statement": "both are red", "label": "yes"},
    ]
    found = list(build(root, rows, **ALL_TRAIN).samples("train"))
    assert {(sample.image_ids, sample.answer) for sample in found} == {
        (("0.png", "1.png"), "False"),
        (("0.png", "3.png"), "True"),
    }
    assert found[0].images == tuple(root / "photos" / name for name in found[0].image_ids)
    with pytest.raises(UserError, match=r"row 1 \(line 2\): column 'label' is 'maybe', not one of true"):
        everything(build(root, [{**rows[0], "label": "maybe"}]))


def test_pairs_that_share_an_image_are_in_one_split(root):
    """Each image stands in two pairs: the twenty pairs are two chains of ten images."""
    rows = [{"left": f"{n}.png", "right": f"{(n + 2) % 20}.png", "statement": "s", "label": "true"} for n in range(20)]
    builder = build(root, rows, shares={"val": 0.5, "test": 0})
    images = [builder.samples(split).image_names() for split in ("train", "val")]
    assert [len(names) for names in images] == [10, 10] and not images[0] & images[1]


def test_the_split_of_a_column(root):
    rows = [{**row, "split": ("train", "validation", "test")[n % 3]} for n, row in enumerate(QUESTIONS)]
    builder = build(root, rows, use={"val": "validation"})
    assert builder.own_splits() == ["train", "validation", "test"]
    assert [len(builder.samples(split)) for split in ("train", "val", "test")] == [14, 13, 13]
    builder = build(root, rows)
    assert not builder.has_split("val")  # a mixture does without it
    with pytest.raises(
        UserError, match=r"dataset_config\.table\.use\.val: 'val': no such split .*; the one that serves as val is"
    ):
        builder.samples("val")
    with pytest.raises(UserError, match=r"use\.val: 'valid': no such split; did you mean validation\?"):
        build(root, rows, use={"val": "valid"}).samples("val")
    assert len(everything(build(root, rows, columns={"split": ""}))) == 40  # no split: by share
    with pytest.raises(UserError, match=r"t\.csv: row 2 \(line 3\) has nothing in column 'split'"):
        everything(build(root, [{**rows[0]}, {**rows[1], "split": ""}]))


def test_the_split_of_a_file_and_of_a_pattern(root):
    for part in range(3):
        (root / f"train-{part}.csv").write_text(as_csv(QUESTIONS[part * 10 : part * 10 + 10]))
    (root / "dev.csv").write_text(as_csv(QUESTIONS[30:]))
    builder = build(root, splits={"train": "train-*.csv", "dev": "dev.csv"}, use={"val": "dev"})
    assert [len(builder.samples(split)) for split in ("train", "val")] == [30, 10] and not builder.has_split("test")
    assert [path.name for _, path in builder.files("train")] == ["train-0.csv", "train-1.csv", "train-2.csv"]
    with pytest.raises(UserError, match=r"splits\.train: 'x\*\.csv': no file has such a name below"):
        build(root, splits={"train": "x*.csv"}).samples("train")
    with pytest.raises(
        UserError, match=r"dataset_config\.table\.splits\.train='.*none\.csv': no such file; paths begin in env\.data_dir"
    ):
        build(root, splits={"train": "none.csv"}).samples("train")


def test_a_split_without_answers_is_a_test_and_a_single_empty_one_is_not(root, caplog):
    rows = [
        {**row, "split": "train" if n < 20 else "test", "answer": row["answer"] if n < 20 else ""}
        for n, row in enumerate(QUESTIONS)
    ]
    builder = build(root, rows)
    assert len(builder.samples("test")) == 20 and all(sample.answer is None for sample in builder.samples("test"))
    rows[3]["answer"] = rows[7]["answer"] = " "
    with pytest.raises(
        UserError,
        match=r"t\.csv: rows 4 and 8 \(lines 5 and 9\) have nothing in column 'answer'; fill it in, or .*\.on_empty=skip",
    ):
        build(root, rows).samples("train")
    with caplog.at_level(logging.WARNING):
        assert len(build(root, rows, on_empty="skip").samples("train")) == 18
    assert "rows 4 and 8 (lines 5 and 9) have nothing in column 'answer', and are left out" in caplog.text


def test_rows_without_text_or_image(root):
    rows = [dict(row) for row in QUESTIONS[:6]]
    rows[1]["question"], rows[4]["image"] = "  ", ""
    with pytest.raises(
        UserError, match=r"row 5 \(line 6\) has nothing in column 'image'|row 2 \(line 3\) has nothing in column 'question'"
    ):
        build(root, rows, **ALL_TRAIN).samples("train")
    found = build(root, rows, on_empty="skip", **ALL_TRAIN).samples("train")
    assert len(found) == 4


def test_a_row_that_is_left_out_is_told_once(root, caplog):
    """A row without an image is in no split, and is met in each."""
    rows = [dict(row) for row in QUESTIONS]
    rows[4]["image"] = ""
    with caplog.at_level(logging.WARNING):
        assert len(everything(build(root, rows, on_empty="skip"))) == 39
    assert caplog.messages == [f"{root}/t.csv: row 5 (line 6) has nothing in column 'image', and is left out"]


class Answers(http.server.BaseHTTPRequestHandler):
    """/404.png is answered 404."""

    def do_GET(self):
        self.send_error(int(self.path[1:4]))

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_address[1]}"
    found.shutdown()
    found.server_close()


def test_why_a_url_cannot_be_fetched_is_told_once(root, server, caplog):
    pytest.importorskip("aiohttp")
    rows = [{"image": f"{server}/{status}.png", "caption": "c"} for status in (404, 403, 599)]
    rows.append({"image": "http://127.0.0.1:1/0.png", "caption": "c"})
    reasons = (
        "the server answers 404 (Not Found)",
        "the server answers 403 (Forbidden)",
        "the server answers 599",
        "the connection is refused: no server is there",
    )
    for row, reason in zip(rows, reasons, strict=True):
        caplog.clear()
        builder = build(root, [row], on_bad_image="skip", **ALL_TRAIN)
        samples = builder.samples("train")
        told = f"{root}/t.csv: row 1 (line 2): 1 of 1 images cannot be fetched: {row['image']} ({reason})"
        assert [line for line in caplog.messages if "fetching" not in line] == [told]
        assert builder.missing("train", samples.image_paths(), 2) == (
            f"{told.replace('1 of 1', '1 of 2')}; the same command fetches what is missing; "
            f"{KEY}.on_bad_image=skip leaves such images out"
        )


def test_an_image_whose_only_row_has_no_text_is_told(root):
    rows = [{"image": "0.png", "caption": "a"}, {"image": "1.png", "caption": ""}]
    found = build(root, rows, on_empty="skip", **ALL_TRAIN).samples("train")
    assert list(found.left_out) == ["photos/1.png"]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ONE, {"columns": {"question": "Fraeg"}}, r"columns\.question: 'Fraeg': .*t\.csv has no such column"),
        ([{"img": "0.png", "question": "q", "answer": "a"}], {}, r"columns\.image: .*t\.csv has no such column; name the one"),
        (
            [{"image": "0.png", "qestion": "q"}],
            {},
            r"columns\.question: .* has no such column, nor caption or statement; .*did you mean qestion\?",
        ),
        (
            [{"image": "0.png", "question": "q", "caption": "c"}],
            {},
            r'has question and caption; set those that are not meant to ""',
        ),
        ([{"left": "0.png", "question": "q"}], {}, r"columns\.right: .* has no such column"),
        ([{**ONE[0], "left": "a", "right": "b"}], {}, r"has image, left and right"),
        (ONE, {"columns": {"groups": ["kind"]}}, r"columns\.groups\[0\]: 'kind'"),
        (
            [{**ONE[0], "id": 7}, {**ONE[0], "id": 8}, {**ONE[0], "id": "7"}],
            {},
            r"id 7 is duplicated, in row 3 \(line 4\) and before in .*t\.csv, row 1 \(line 2\)",
        ),
        ([{**ONE[0], "id": ""}], {}, r"row 1 \(line 2\): column 'id' is empty"),
        ([{**ONE[0], "image": "../x.png"}], {}, r"row 1 \(line 2\): image '\.\./x\.png' is outside the folder"),
        ([{**ONE[0], "image": "/etc/passwd"}], {}, r"row 1 \(line 2\): image '/etc/passwd' is outside the folder"),
        ([{**ONE[0], "image": "..\\x.png"}], {}, r"is outside the folder"),
        (
            [{**ONE[0], "image": "file:///etc/passwd"}],
            {},
            r"row 1 \(line 2\): image 'file:///etc/passwd' leads to files of this machine",
        ),
        ([{**ONE[0], "image": "zip://a.png::/x.zip"}], {}, r"leads to files of this machine"),
        ([{**ONE[0], "image": "a\0b.png"}], {}, r"row 1 \(line 2\): column 'image' holds the character NUL"),
        ([{**ONE[0], "image": "x" * 10**6}], {}, r"row 1 \(line 2\): column 'image' is a text of 1,000,000 characters"),
        (
            [{**ONE[0], "image": f"{n}.png"} for n in (0, 1, 40, 2, 41)],
            {},
            r"rows 3 and 5 \(lines 4 and 6\): 2 of 5 images are not there: .*40\.png.*on_bad_image=skip",
        ),
        (
            [{**ONE[0], "image": f"{n}.png"} for n in (40, 41)],
            {},
            r"none of the images is there: .*40\.png, .*41\.png; .*images='photos' is the folder",
        ),
    ],
)
def test_what_is_wrong_is_named(root, rows, options, message):
    with pytest.raises(UserError, match=message) as error:
        build(root, rows, **ALL_TRAIN, **options).samples("train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": None}, r"table\.table: None is invalid: is not set, and splits neither"),
        ({"splits": {"train": "a.csv"}, "table": "t.csv"}, "and splits are both set"),
        ({"shares": {"val": 0.6, "test": 0.5}}, r"shares\.test: 0\.5 is invalid: with val, more than all images"),
        ({"delimiter": "ab"}, "must be one character"),
        ({"on_empty": "ignore"}, "must be error or skip"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(UserError, match=message):
        build(root, ONE, **options)


def test_one_of_several_texts_may_be_meant(root):
    rows = [{"image": "0.png", "question": "q", "caption": "c"}]
    for columns, text in (
        ({"caption": ""}, "q"),
        ({"question": ""}, "c"),
        ({"caption": "question"}, "q"),
        ({"caption": "Caption"}, "c"),
    ):
        (sample,) = build(root, rows, columns=columns, **ALL_TRAIN).samples("train")
        assert sample.text == text


def test_images_by_pattern(root):
    rows = [{"image": "3", "question": "q", "answer": "a"}]
    for pattern in ("photos/{image}.png", "photos/{image:01d}.png"):
        (sample,) = build(root, rows, images=pattern, **ALL_TRAIN).samples("train")
        assert sample.images == (root / "photos/3.png",)
    with pytest.raises(UserError, match=r"images: 'photos/\{name\}\.png': cannot be filled in"):
        build(root, rows, images="photos/{name}.png", **ALL_TRAIN).samples("train")


def test_bad_images_are_skipped_where_that_is_asked(root):
    rows = [{**ONE[0], "image": f"{n}.png"} for n in (0, 1, 40)]
    assert len(build(root, rows, on_bad_image="skip", **ALL_TRAIN).samples("train")) == 3  # the reader counts them


def test_content_in_cells(root, pictures):
    contents = [(pictures / f"photos/{n}.png").read_bytes() for n in range(4)]
    rows = [
        {"image": "data:image/png;base64," + base64.b64encode(content).decode(), "caption": f"c{n}"}
        for n, content in enumerate(contents)
    ]
    rows.append({**rows[0], "caption": "again"})
    builder = build(root, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl", **ALL_TRAIN)
    found = builder.samples("train")
    assert found.num_images == 4 and {sample.text: sample.images[0].read_bytes() for sample in found}["again"] == contents[0]
    assert all(path.is_relative_to(root / "cache") for path in found.image_paths())
    for path in found.image_paths():
        path.unlink()  # somebody tidies up; the annotation cache stays
    assert all(path.is_file() for path in builder.samples("train").image_paths())
    with pytest.raises(UserError, match=r"must be unpacked to a folder; set env\.cache_dir"):
        build(root, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl", cache=False, **ALL_TRAIN).samples("train")


def test_parquet_as_hugging_face_writes_it(root, pictures):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [{"bytes": (pictures / f"photos/{n}.png").read_bytes(), "path": "image.png"} for n in range(10)]
    parquet.write_table(
        pyarrow.table({"image": images, "question": ["q"] * 10, "answer": [f"a{n}" for n in range(10)]}), root / "t.parquet"
    )
    found = everything(build(root, name="t.parquet"))
    assert sorted(sample.answer for sample in found) == [f"a{n}" for n in range(10)]
    assert all(sample.images[0].read_bytes() == images[int(sample.answer[1])]["bytes"] for sample in found)


def test_urls_are_fetched_once(root, pictures, monkeypatch):
    import fsspec

    files = fsspec.filesystem("memory")
    for number in range(3):
        files.pipe(f"/{number}.png", (pictures / f"photos/{number}.png").read_bytes())
    rows = [{"image": f"memory://{n}.png", "caption": f"c{n}"} for n in range(3)]
    found = build(root, rows, **ALL_TRAIN).samples("train")
    assert {sample.text: sample.images[0].read_bytes() for sample in found} == {
        f"c{n}": files.cat(f"/{n}.png") for n in range(3)
    }
    files.rm("/0.png")
    monkeypatch.setattr(unpacked, "_reader", lambda: pytest.fail("fetched again"))
    assert len(build(root, rows, **ALL_TRAIN, answer_separator="|").samples("train")) == 3
    monkeypatch.undo()
    rows.append({"image": "memory://0.jpg", "caption": "c"})
    with pytest.raises(UserError, match=r"row 4 \(line 5\): 1 of 4 images cannot be fetched: memory://0\.jpg \(no such file\)"):
        build(root, rows, **ALL_TRAIN).samples("train")
    assert len(build(root, rows, on_bad_image="skip", **ALL_TRAIN).samples("train")) == 4


def test_a_protocol_without_its_package_is_one_line_also_where_bad_images_are_skipped(root, monkeypatch):
    def lacks(url: str) -> bytes:
        raise ImportError("needs some_package")

    monkeypatch.setattr(unpacked, "_reader", lambda: lacks)
    with pytest.raises(
        UserError, match=r"^s3://a/b\.png: this protocol needs another package \(needs some_package\); pip install"
    ):
        build(root, [{"image": "s3://a/b.png", "caption": "c"}], on_bad_image="skip", **ALL_TRAIN).samples("train")


def test_the_cache_knows_the_file_and_the_options(root, monkeypatch):
    builder = build(root, QUESTIONS)
    first = everything(builder)
    again = build(root)
    monkeypatch.setattr(type(again), "_read", lambda *_: pytest.fail("read again"))
    assert everything(again) == first
    monkeypatch.undo()
    assert everything(build(root, shares={"val": 0.3})) != first
    (root / "t.csv").write_text(as_csv(QUESTIONS).replace("it red", "it  red"))
    assert everything(build(root)) != first


def test_a_changed_table_is_noticed_by_a_resume(root):
    def prints(rows: list[dict]) -> dict:
        part: Samples = build(root, rows).samples("train")
        return fingerprint.fingerprints({"train": Mixture("train", {"table": part})})["train/table"]

    before = prints(QUESTIONS)
    assert fingerprint.changes(before, prints(random.Random(0).sample(QUESTIONS, len(QUESTIONS)))) == []
    assert fingerprint.changes(before, prints([{**row, "answer": "red"} for row in QUESTIONS])) == ["answers"]


@pytest.mark.slow  # the package takes seconds to import
def test_hugging_faces_datasets(root, pictures):
    datasets = pytest.importorskip("datasets")
    from datasets import Dataset, DatasetDict, Features, Image, Value

    features = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
    parts = {
        split: Dataset.from_dict(
            {
                "image": [str(pictures / f"photos/{n}.png") for n in numbers],
                "question": ["q"] * len(numbers),
                "answer": [f"a{n}" for n in numbers],
            },
            features=features,
        )
        for split, numbers in (("train", range(8)), ("validation", range(8, 10)))
    }
    datasets.disable_progress_bars()
    DatasetDict(parts).save_to_disk(str(root / "saved"))
    builder = build(root, table="saved", format="datasets", use={"val": "validation"})
    assert builder.own_splits() == ["train", "validation"]
    found = builder.samples("train")
    assert len(found) == 8 and len(builder.samples("val")) == 2
    assert all(sample.images[0].read_bytes() == (pictures / f"photos/{sample.answer[1:]}.png").read_bytes() for sample in found)
    parts["train"].save_to_disk(str(root / "single"))  # without splits: by share
    assert {len(build(root, table="single", format="datasets").samples(split)) for split in ("train", "val", "test")} == {6, 1}
    with pytest.raises(UserError, match=r"table\.table='nowhere': cannot be loaded by datasets"):
        import os

        os.environ["HF_HUB_OFFLINE"], former = "1", os.environ.get("HF_HUB_OFFLINE")
        try:
            build(root, table="nowhere", format="datasets").samples("train")
        finally:
            os.environ.pop("HF_HUB_OFFLINE") if former is None else os.environ.update(HF_HUB_OFFLINE=former)
