"""`pixelbert-data new`: what it sees in tables as people write them, and that what it writes can be run."""

import csv
import json
from pathlib import Path

import pytest
from conftest import draw_image

from pixelbert_plugin import config as configuration
from pixelbert_plugin.commands import data
from pixelbert_plugin.commands import run as cli


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "photos"
    folder.mkdir()
    for number in range(24):
        draw_image(folder / f"{number}.jpg", ("red", "green", "blue")[number % 3], number, (120 + number, 90))
    return folder


@pytest.fixture(autouse=True)
def there(tmp_path, pictures, monkeypatch):
    (tmp_path / "photos").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # of the cache


def table(name: str, rows: list[dict]) -> None:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def new(capsys, *options: str, status: int = 0) -> str:
    assert data.main(["new", "out=my.yaml", *options]) == status
    printed = capsys.readouterr()
    return printed.err if status else printed.out


def written() -> dict:
    """The configuration, complete; the data set's options as they stand there."""
    config = configuration.resolve("my.yaml", ["env.cache_dir=cache"])
    return {"config": config, **vars(config.dataset_config["table"])}


COLORS = ("red", "green", "blue")
QUESTIONS = [
    {"File name": f"{n}.jpg", "Question": q, "Answer": a, "question type": kind}
    for n in range(24)
    for q, a, kind in (("what color is it?", COLORS[n % 3], "color"), ("is it red?", "no" if n % 3 else "yes", "yes/no"))
]
CAPTIONS = [
    {"img": f"{n}.jpg", "text": f"a {COLORS[n % 3]} disc number {n} {part}"} for n in range(24) for part in ("here", "there")
]
PAIRS = [
    {"image1": f"{n}.jpg", "image2": f"{(n + 12)}.jpg", "sentence": "both are of one color", "label": str(n % 2 == 0)}
    for n in range(12)
]


def test_questions(capsys):
    table("t.csv", QUESTIONS)
    told = new(capsys, "table=t.csv", "images=photos/")
    assert "task        vqa" in told and "image = 'File name'" in told and "results also by 'question type'" in told
    assert "by share: train 40 (20 images), val 4 (2 images), test 4 (2 images)" in told
    assert "5 of 5" in told and "pixelbert-run config=my.yaml" in told and "pixelbert-demo checkpoint=save/my" in told
    found = written()
    assert found["config"].task == "vqa" and found["config"].run_type == "train_val_test"
    assert (found["columns"].image, found["columns"].groups, found["images"]) == ("File name", ["question type"], "photos")
    assert found["config"].processors.image.params.short_edge == 64  # of images of 90 pixels
    assert found["config"].processors.answers.params.min_occurrences == 1


def test_the_folder_is_found_beside_the_table(capsys):
    table("t.csv", QUESTIONS)
    new(capsys, "table=t.csv")
    assert written()["images"] == "photos"


@pytest.mark.parametrize(
    ("change", "given", "expected"),
    [
        (lambda name: f"photos/{name}", "images=photos", ""),  # names begin with the folder
        (lambda name: f"photos\\{name}", "images=.", "."),  # as Windows writes them
        (lambda name: name.removesuffix(".jpg"), "images=photos", "photos/{image}.jpg"),  # without their suffix
    ],
)
def test_images_are_found_as_they_are_named(capsys, change, given, expected):
    table("t.csv", [{**row, "File name": change(row["File name"])} for row in QUESTIONS])
    new(capsys, "table=t.csv", given)
    assert written()["images"] == expected


def test_captions(capsys):
    table("t.csv", CAPTIONS)
    told = new(capsys, "table=t.csv")
    assert "task        retrieval" in told and "caption = 'text'" in told
    assert written()["config"].task == "retrieval"
    assert "task        pretrain" in new(capsys, "table=t.csv", "task=pretrain", "overwrite=true")


def test_pairs(capsys):
    table("t.csv", PAIRS)
    told = new(capsys, "table=t.csv")
    assert "task        nlvr2" in told and "left = 'image1', right = 'image2'" in told and "label = 'label'" in told
    assert written()["config"].task == "nlvr2"


def test_several_answers_and_a_split(capsys):
    rows = [
        {"image": f"{n}.jpg", "question": "q", "answers": "a|b|a", "set": ("training", "dev", "x")[n % 3]} for n in range(24)
    ]
    table("t.csv", rows)
    told = new(capsys, "table=t.csv")
    assert "by column 'set': train 8" in told and "val 8" in told
    found = written()
    assert (found["answer_separator"], found["use"], found["config"].run_type) == (
        "|",
        {"train": "training", "val": "dev"},
        "train_val",
    )


def test_files_by_split(capsys):
    table("a.csv", QUESTIONS[:30])
    table("b.csv", QUESTIONS[30:])
    told = new(capsys, "splits={train: a.csv, valid: b.csv}", "images=photos")
    assert "by files: train 30" in told
    assert written()["use"] == {"val": "valid"} and written()["splits"] == {"train": "a.csv", "valid": "b.csv"}


def test_what_is_wrong_in_rows_is_told_and_left_out(capsys):
    rows = [{**row, "id": n} for n, row in enumerate(QUESTIONS)]
    rows[2]["id"] = 0
    rows[5]["Answer"] = ""
    rows[7]["File name"] = "gone.jpg"
    table("t.csv", rows)
    told = new(capsys, "table=t.csv", "images=photos")
    assert "column 'id': row 3 (line 4) repeats an id or has none" in told
    assert "row 6 (line 7) has nothing in column 'Answer', and are left out" in told
    assert "row 8 (line 9): 1 of" in told and "gone.jpg" in told and "on_bad_image: skip" in told
    found = written()
    assert (found["on_empty"], found["on_bad_image"], found["columns"].id) == ("skip", "skip", "")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{**row, "File name": f"x{n}.jpg"} for n, row in enumerate(QUESTIONS)], [], r"none of the images is there: photos/x"),
        ([{"a": "x", "b": "y"}], [], "no column is called as images are"),
        (
            [{"image": "1.jpg", "question": "q"}],
            [],
            "a column of answers is not found; say which: columns.answer=NAME (its columns: image, question)",
        ),
        (
            [{"image": "1.jpg", "note": "q"}],
            [],
            "a column of questions or captions is not found; say which: columns.question=NAME",
        ),
        (QUESTIONS, ["columns.image=Photo"], "columns.image: 'Photo'"),
        (QUESTIONS, ["task=captioning"], "task: 'captioning' is invalid: must be auto, vqa"),
        (QUESTIONS, ["imges=photos"], "imges: unknown key; did you mean images?"),
    ],
)
def test_what_cannot_be_used_is_one_line(capsys, rows, options, message):
    table("t.csv", rows)
    error = new(capsys, "table=t.csv", "images=photos", *options, status=2)
    assert (
        message.replace("photos/x", "") in error.replace("photos/x", "")
        and error.count("\n") == 1
        and not Path("my.yaml").exists()
    )


def test_a_file_that_is_there_stays(capsys):
    table("t.csv", QUESTIONS)
    Path("my.yaml").write_text("mine")
    assert "out: 'my.yaml' is there already" in new(capsys, "table=t.csv", status=2)
    assert Path("my.yaml").read_text() == "mine"
    assert data.main(["new", "table=t.csv"]) == 2 and "out: '' is invalid: is not set" in capsys.readouterr().err
    assert "table: None is invalid: is not set, and splits neither" in new(capsys, "overwrite=true", status=2)
    assert "no such file" in new(capsys, "table=none.csv", "overwrite=true", status=2)


def test_the_larger_model_is_a_configuration_too(capsys):
    table("t.csv", QUESTIONS)
    new(capsys, "table=t.csv", "model=base")
    config = configuration.load("my.yaml")
    assert config.processors.text.params["vocabulary"] == "bert-base-uncased"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "options", "metric"),
    [
        (CAPTIONS, [], "val/table/mean_r@1"),
        (PAIRS, [], "val/table/accuracy"),
    ],
)
def test_what_is_written_trains(capsys, rows, options, metric):
    table("t.csv", rows)
    new(capsys, "table=t.csv", *options)
    assert cli.main(["config=my.yaml", "training.max_updates=2", "training.num_workers=0", "training.device=cpu"]) == 0
    assert metric in json.loads(Path("save/my/results.json").read_text())
