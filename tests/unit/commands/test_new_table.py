"""`pixelbert-data new`: what it sees in tables as people write them, and that what it writes can be run."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from conftest import draw_image

from pixelbert_plugin import config as configuration
from pixelbert_plugin.commands import data, table_look
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.data.builders.table import TableConfig


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
        {"image": f"{n}.jpg", "question": "q", "answers": ("c|b|c", "b|b|d")[n % 2], "set": ("training", "dev", "x")[n % 3]}
        for n in range(24)
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
    assert "row 6 (line 7) has nothing in column 'Answer', and is left out (on_empty: skip)" in told
    assert "row 8 (line 9): 1 of" in told and "gone.jpg" in told and "on_bad_image: skip" in told
    found = written()
    assert (found["on_empty"], found["on_bad_image"], found["columns"].id) == ("skip", "skip", "")


def by_split(*names: str, rows: list[dict] = QUESTIONS) -> list[dict]:
    """The rows in as many parts of equal length, one after the other."""
    return [{**row, "split": names[n * len(names) // len(rows)]} for n, row in enumerate(rows)]


def test_a_split_of_another_name_is_told_with_its_rows(capsys):
    table("t.csv", by_split("train", "dev", "eval"))
    assert "train 16 (8 images), val 16 ('dev', 8 images), test 16 ('eval', 8 images)" in new(capsys, "table=t.csv")
    assert written()["use"] == {"val": "dev", "test": "eval"}
    table("t.csv", by_split("train", "val", "test", "extra"))
    told = new(capsys, "table=t.csv", "overwrite=true")
    note = (
        "column 'split': 'extra' (12 rows) is not taken for train, val or test, and left out; use={test: extra} takes it in "
        "place of 'test'"
    )
    assert f"note        {note}\n" in told and "48 pairs" not in told
    comments = [line.strip().removeprefix("# ").strip() for line in Path("my.yaml").read_text().splitlines() if "#" in line]
    assert note in " ".join(comments)
    told = new(capsys, "table=t.csv", "overwrite=true", "use={test: extra}")
    assert "test 12 ('extra', 6 images)" in told and "'test' (12 rows) is not taken" in told
    assert written()["use"] == {"test": "extra"}
    error = new(capsys, "table=t.csv", "overwrite=true", "use={test: exta}", status=2)
    assert "use.test: 'exta': no such split; did you mean extra?" in error


def test_a_file_or_a_value_without_a_split_is_told(capsys):
    table("a.csv", QUESTIONS[:30])
    table("b.csv", QUESTIONS[30:])
    told = new(capsys, "splits={train: a.csv, holdout: b.csv}", "images=photos")
    assert "'holdout' (18 rows) is not taken for train, val or test, and left out; use={val: holdout} takes it" in told
    assert "val 18 ('holdout', 9 images)" in new(
        capsys, "splits={train: a.csv, holdout: b.csv}", "images=photos", "use={val: holdout}", "overwrite=true"
    )


def test_rows_without_a_split_are_left_out_with_their_lines(capsys):
    rows = by_split("train", "val")
    rows[3]["split"], rows[30]["split"] = "", " "
    table("t.csv", rows)
    told = new(capsys, "table=t.csv")
    assert "train 23 (12 images), val 23 (12 images)" in told
    assert "rows 4 and 31 (lines 5 and 32) have nothing in column 'split', and are left out (on_empty: skip)" in told
    assert written()["on_empty"] == "skip"
    error = new(capsys, "table=t.csv", "overwrite=true", "on_empty=error", status=2)
    assert "nothing in column 'split'; fill it in, or leave such rows out with on_empty=skip" in error


def test_pairs_that_are_all_connected_measure_nothing_and_that_is_told(capsys):
    ring = [{**PAIRS[n % 12], "image1": f"{n}.jpg", "image2": f"{(n + 1) % 24}.jpg"} for n in range(24)]
    table("t.csv", ring)
    told = new(capsys, "table=t.csv")
    assert "split       by share: train 24 (24 images)" in told and "my.yaml trains on it, and measures nothing" in told
    assert told.count("WARNING") == 1 and (
        "WARNING     there is no val and no test, so that nothing is measured: 24 of 24 images are connected by pairs that "
        "share one, and are all train's, for in val or test a pair would have an image that was learned; give these pairs and "
        "images of their own: columns.split=NAME names a column of splits" in told
    )
    table("t.csv", [*ring[:15], *({**PAIRS[0], "image1": f"{n}.jpg", "image2": f"{n + 1}.jpg"} for n in range(16, 24, 2))])
    told = new(capsys, "table=t.csv", "overwrite=true")  # a chain of 16, and four pairs: one of them is val, one test
    assert "train 17 (20 images), val 1 (2 images), test 1 (2 images)" in told
    assert "WARNING     16 of 24 images are connected by pairs" in told


def test_images_of_train_that_are_evaluated_are_told(capsys):
    table("t.csv", [{**row, "split": ("train", "val")[n % 2]} for n, row in enumerate(QUESTIONS)])
    told = new(capsys, "table=t.csv")
    assert "WARNING     val: 24 of 24 images are the train split's too" in told
    assert "'columns.split=\"\"' deals the images out anew" in told
    assert "WARNING" not in new(capsys, "table=t.csv", 'columns.split=""', "overwrite=true")


def test_a_table_of_training_alone_is_told(capsys):
    table("t.csv", by_split("train"))
    told = new(capsys, "table=t.csv")
    assert "WARNING     there is no val and no test, so that nothing is measured: columns.split=NAME" in told


def test_answers_are_counted_as_training_does(capsys):
    rows = [{**row, "Answer": row["Answer"].upper() if n % 4 == 1 else row["Answer"]} for n, row in enumerate(QUESTIONS)]
    rows = [{**row, "Answer": f" {row['Answer']} "} if n % 3 else row for n, row in enumerate(rows)]
    table("t.csv", rows)
    told = new(capsys, "table=t.csv", "shares={val: 0, test: 0}")
    # 8 each of red, green and blue; yes 8, no 16; of the 24 of the last two every other is in capitals
    assert "answers     5 of 5, those of 1 or more rows; 33 % are" in told
    assert "2 answers are spelled in several ways, as 'NO' and 'no'" in told and "of the 12 rows of train that" in told
    assert "spelled" not in new(capsys, "table=t.csv", "columns.answer=question type", "overwrite=true")


def test_images_that_cannot_be_read_are_told_and_left_out(capsys, pictures):
    Path("photos").unlink()
    shutil.copytree(pictures, "photos")
    content = Path("photos/3.jpg").read_bytes()
    for number, broken in ((3, content[: len(content) // 2]), (4, b""), (5, b"text")):
        Path(f"photos/{number}.jpg").write_bytes(broken)
    table("t.csv", QUESTIONS)
    told = new(capsys, "table=t.csv", "shares={val: 0, test: 0}")
    assert "t.csv: rows 7, 8, 9, 10, 11 and 1 more (lines 8, 9, 10, 11, 12, …): 3 of 24 images cannot be read" in told
    for reason in ("photos/3.jpg: not a readable", "the file is empty", "no known image format", "on_bad_image: skip"):
        assert reason in told
    assert written()["on_bad_image"] == "skip"
    error = new(capsys, "table=t.csv", "shares={val: 0, test: 0}", "overwrite=true", "on_bad_image=error", status=2)
    assert "3 of 24 images cannot be read" in error
    for number in range(6, 20):
        Path(f"photos/{number}.jpg").write_bytes(b"text")
    assert "17 of 24 images cannot be read" in new(
        capsys, "table=t.csv", "shares={val: 0, test: 0}", "overwrite=true", status=2
    )


def test_where_there_is_no_time_to_decode_headers_are_read_and_that_is_told(capsys, pictures, monkeypatch):
    Path("photos").unlink()
    shutil.copytree(pictures, "photos")
    content = Path("photos/3.jpg").read_bytes()
    Path("photos/3.jpg").write_bytes(content[: len(content) // 2])  # its header is whole
    Path("photos/4.jpg").write_bytes(b"text")
    table("t.csv", QUESTIONS)
    monkeypatch.setattr(table_look, "DECODING", -1.0)
    told = new(capsys, "table=t.csv", "shares={val: 0, test: 0}")
    assert "1 of 24 images cannot be read: photos/4.jpg" in told
    assert "0 of 24 images were decoded, 24 looked at; pixelbert-data check config=my.yaml images=all decodes every one" in told


def test_columns_of_longer_names(capsys):
    names = {"File name": "Image File ", "Question": "Question Text", "Answer": " Answer", "question type": "questionType"}
    table("t.csv", [{names[name]: cell for name, cell in row.items()} for row in QUESTIONS])
    told = new(capsys, "table=t.csv")
    assert "image = 'Image File ', question = 'Question Text', answer = ' Answer'; results also by 'questionType'" in told
    rows = [{"image": row["File name"], "question text": "q", "question value": "r", "answer": "a"} for row in QUESTIONS]
    table("t.csv", rows)  # two that may be it
    assert "a column of questions or captions is not found" in new(capsys, "table=t.csv", "overwrite=true", status=2)


def test_every_option_that_a_message_advises_is_taken():
    others = {"counts", "only_known_answers"}  # of published data sets; beside another data set
    options = {item.name for item in dataclasses.fields(TableConfig)} - others
    assert options <= {item.name for item in dataclasses.fields(table_look.NewConfig)}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("image,question,answer\n0.jpg,Größe?,a\n".encode("latin-1"), [], "set encoding to what it is"),
        (b"image,question,answer\n../0.jpg,q,a\n", [], "allow it with outside_images=true"),
        (b"image,question,answer\nfile:///0.jpg,q,a\n", [], "allow it with outside_images=true"),
        (b'image,question,answer\n0.jpg,"q" x,a\n', [], "or set quotes=false"),
        (b"image,question,answer\n0.jpg,q,a\n", ["columns.answer=anser"], "columns.answer: 'anser': t.csv has no such column"),
        (b"image,question,answer\nx.jpg,q,a\n0.jpg,q,b\n", ["on_bad_image=error"], "on_bad_image=skip leaves such images out"),
    ],
)
def test_messages_name_the_options_of_this_command(capsys, content, options, message):
    Path("t.csv").write_bytes(content)
    error = new(capsys, "table=t.csv", "images=photos", "shares={val: 0, test: 0}", *options, status=2)
    assert message in error and "dataset_config" not in error and "env.data_dir" not in error


def test_urls_that_cannot_be_fetched_are_one_line(capsys, caplog):
    pytest.importorskip("aiohttp")
    rows = [{"image": f"http://127.0.0.1:1/{n}.png", "question": "q", "answer": str(n)} for n in range(5)]
    table("t.csv", rows)
    error = new(capsys, "table=t.csv", "shares={val: 0, test: 0}", status=2)
    assert "rows 1, 2, 3, 4 and 5 (lines 2, 3, 4, 5 and 6): none of the images can be fetched: http://127.0.0.1:1/" in error
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "(the connection is refused: no server is there)" in error and "table_images" not in error
    assert not any("table_images" in told or "cannot be fetched" in told for told in warnings)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{**row, "Answer": "Yes "} for row in QUESTIONS], [], "train (48 of the table's rows) has the single answer 'Yes'"),
        (QUESTIONS, ["task=pretrain"], "task pretrain tells an image's text from those of other images, and in train none"),
        ([{**row, "text": "the same"} for row in CAPTIONS], [], "task retrieval tells an image's text from those of other"),
        (
            [{name: row[name] for name in ("image1", "image2", "sentence")} for row in PAIRS],
            [],
            "no row of train has its label",
        ),
    ],
)
def test_what_a_run_would_refuse_is_refused(capsys, rows, options, message):
    table("t.csv", rows)
    assert message in new(capsys, "table=t.csv", "shares={val: 0, test: 0}", *options, status=2)


def test_a_val_without_answers_is_left_out(capsys):
    rows = by_split("train", "val", "test")
    table("t.csv", [{**row, "Answer": row["Answer"] if row["split"] != "val" else ""} for row in rows])
    assert "WARNING     no row of val has an answer" in new(capsys, "table=t.csv")
    assert written()["config"].run_type == "train_test"


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
        (QUESTIONS, ["shares={val:0.2,test:0}"], "shares: 'val:0.2': a blank after the colon is missing; write val: 0.2"),
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


@pytest.mark.slow  # the package takes seconds to import
def test_a_data_set_of_hugging_faces_without_splits_is_dealt_out(capsys, pictures):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    columns = {"image": [str(pictures / row["File name"]) for row in QUESTIONS]}
    columns |= {name.lower(): [row[name] for row in QUESTIONS] for name in ("Question", "Answer")}
    whole = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    whole.save_to_disk("saved")
    told = new(capsys, "table=saved", "format=datasets")
    assert "by share: train 40 (20 images), val 4 (2 images), test 4 (2 images), an image in one split alone" in told
    parts = {"train": whole.select(range(40)), "validation": whole.select(range(40, 44)), "x": whole.select(range(44, 48))}
    datasets.DatasetDict(parts).save_to_disk("parts")
    told = new(capsys, "table=parts", "format=datasets", "overwrite=true")
    assert "by the data set: train 40 (20 images), val 4 ('validation', 2 images)" in told
    assert "'x' (4 rows) is not taken for train, val or test" in told


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
