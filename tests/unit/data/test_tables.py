"""Tables as rows: what files of other people hold is read, or is one line that names the row."""

import json
from pathlib import Path

import pytest

from pixelbert_plugin.data.tables import Place, Reading, named_rows, open_table
from pixelbert_plugin.errors import UserError

KEY = "dataset_config.table"


def table(path: Path, kind="auto", **options):
    return open_table(path, kind, f"{KEY}.table", Reading(KEY, **options))


def cells(path: Path, *columns: str, **options) -> list[list]:
    return [[row.cells[name] for name in columns] for row in table(path, **options).rows(list(columns))]


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "image,q\na.jpg,x\nb.jpg,y\n", [["a.jpg", "x"], ["b.jpg", "y"]]),
        ("a.csv", "\ufeffimage,q\r\na.jpg,x\r\nb.jpg,y\r\n", [["a.jpg", "x"], ["b.jpg", "y"]]),  # as Excel saves it
        ("a.csv", "image;q\na.jpg;x, y\n", [["a.jpg", "x, y"]]),  # where a comma is the decimal sign
        ("a.csv", "image\tq\na.jpg\tx;y;z,\n", [["a.jpg", "x;y;z,"]]),
        ("a.csv", "\n\nimage,q\n\na.jpg,x\n,\n\n", [["a.jpg", "x"]]),  # empty lines, and one of empty cells
        ("a.csv", 'image,q\na.jpg,"she said ""no"", twice"\n', [["a.jpg", 'she said "no", twice']]),
        ("a.csv", 'image,q\na.jpg,"two\nlines"\nb.jpg,y\n', [["a.jpg", "two\nlines"], ["b.jpg", "y"]]),
        ("a.csv", "image,q\na.jpg,x\0y\n", [["a.jpg", "x\0y"]]),
        ("a.tsv", 'image\tq\na.jpg\tis it 5" wide, or 6"?\n', [["a.jpg", 'is it 5" wide, or 6"?']]),
        ("a.jsonl", '{"q": "x", "image": "a.jpg"}\n\n{"image": "b.jpg"}\n', [["a.jpg", "x"], ["b.jpg", None]]),
        ("a.json", '[{"image": "a.jpg", "q": ["x", {"a": 1}]}]', [["a.jpg", ["x", {"a": 1}]]]),
    ],
)
def test_cells_are_as_the_file_has_them(tmp_path, name, content, expected):
    assert cells(written(tmp_path, name, content), "image", "q") == expected


def test_a_cell_of_a_million_characters(tmp_path):
    path = written(tmp_path, "a.csv", f"image,q\na.jpg,{'x' * 10**6}\n")
    assert cells(path, "image", "q") == [["a.jpg", "x" * 10**6]]


def test_another_encoding_is_named_and_then_read(tmp_path):
    path = written(tmp_path, "a.csv", "image,q\na.jpg,Größe?\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"is no utf-8 text \(invalid .*set dataset_config\.table\.encoding .* cp1252"):
        cells(path, "q")
    assert cells(path, "q", encoding="latin-1") == [["Größe?"]]
    with pytest.raises(UserError, match=r"dataset_config\.table\.encoding: 'utf-9': no such encoding"):
        cells(path, "q", encoding="utf-9")
    path.write_bytes("image,q\na.jpg,Größe?\n".encode("utf-16"))
    with pytest.raises(UserError, match="is UTF-16 or UTF-32 text"):
        cells(path, "q")
    assert cells(path, "q", encoding="utf-16") == [["Größe?"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "image,q\na.jpg,x\nb.jpg,y,z\n",
            r"a\.csv: row 2 \(line 3\) has 3 cells, the header 2; put cells that hold ','",
        ),
        ("a.csv", 'image,q\na.jpg,"x\nb.jpg,y\n', r"row 1 \(line 2\) cannot be read \(a quotation mark opens here, and none"),
        ("a.csv", 'image,q\na.jpg,"x" y\n', r"row 1 \(line 2\) cannot be read .*table\.quotes=false"),
        ("a.csv", "", "is empty; its first line must name the columns"),
        ("a.csv", "image,q,q\na,b,c\n", "has several columns 'q'; rename all but one"),
        ("a.jsonl", '{"q": 1}\n{"q": }\n', r"row 2 \(line 2\) is no JSON"),
        ("a.jsonl", '{"q": 1}\n[1]\n', r"row 2 \(line 2\) is \[1\], no object"),
        (
            "a.json",
            '{"q": 1}',
            r"must hold a list of objects, \[{…}, …\]; for one object a line set dataset_config.table.format",
        ),
        ("a.json", '[{"q": 1}, {"q": ]', r"row 2 is no JSON \(.*line 1"),
        ("a.csv", "<!DOCTYPE html><html>", "is a web page, not the file itself"),
        ("a.xlsx", "PK\x03\x04", "is a zip archive"),
        ("a.dat", "image,q\n", r"its name does not say what it is \(\.csv, .*set dataset_config\.table\.format"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_row(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message) as error:
        cells(written(tmp_path, name, content), "q")
    assert "\n" not in str(error.value)


def test_quotation_marks_can_be_text(tmp_path):
    path = written(tmp_path, "a.tsv", 'image\tq\na.jpg\t"hello" he said\n')
    assert cells(path, "q", quotes=False) == [['"hello" he said']]


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UserError, match="is a pipe or a device"):
        cells(tmp_path / "a.csv", "q")


def test_columns_differ_in_capitals_and_blanks(tmp_path):
    found = table(written(tmp_path, "a.csv", " Image ,QUESTION,Answer,answer\na,b,c,d\n"))
    assert (found.column("image"), found.column("question"), found.column("answer")) == (" Image ", "QUESTION", "answer")
    assert found.column("caption") is None
    with pytest.raises(UserError, match=r"several columns 'ANSWER' \('Answer', 'answer'\)"):
        found.column("ANSWER")


def test_the_columns_of_json_lines_are_those_of_all_rows(tmp_path):
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in ({"a": 1}, {"b": 2}, {"a": 3})))
    assert table(path).columns == ["a", "b"]


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([3], "row 3"),
        ([3, 5], "rows 3 and 5"),
        ([*range(1, 6)], "rows 1, 2, 3, 4 and 5"),
        ([*range(1, 9)], "rows 1, 2, 3, 4, 5 and 3 more"),
    ],
)
def test_rows_are_named(numbers, told):
    assert named_rows([*map(Place, numbers)]) == told


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([(3, 7)], "row 3 (line 7)"),
        ([(3, 7), (5, 9)], "rows 3 and 5 (lines 7 and 9)"),
        ([(n, n + 1) for n in range(1, 6)], "rows 1, 2, 3, 4 and 5 (lines 2, 3, 4, 5 and 6)"),
        ([(n, n + 1) for n in range(1, 9)], "rows 1, 2, 3, 4, 5 and 3 more (lines 2, 3, 4, 5, 6, …)"),
    ],
)
def test_rows_of_a_text_file_are_named_with_their_lines(places, told):
    assert named_rows([Place(*place) for place in places]) == told


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    image = {"bytes": b"x", "path": "a.png"}  # as Hugging Face writes it
    columns = {"image": [image] * 300, "q": [f"q{n}" for n in range(300)], "n": range(300), "l": [["a"], None] * 150}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=70)
    assert table(tmp_path / "a.parquet").columns == ["image", "q", "n", "l"]
    rows = list(table(tmp_path / "a.parquet").rows(["n", "image", "l"]))
    assert [row.number for row in rows] == [*range(1, 301)] and [row.cells["n"] for row in rows] == [*range(300)]
    assert rows[1].cells["image"] == image and (rows[0].cells["l"], rows[1].cells["l"]) == (["a"], None)
    content = (tmp_path / "a.parquet").read_bytes()
    for broken in (content[:-20], b"x" * 50, content[:200] + b"\xff" * 200 + content[400:]):
        (tmp_path / "a.parquet").write_bytes(broken)
        with pytest.raises(UserError, match="is no readable Parquet file"):
            list(table(tmp_path / "a.parquet").rows())
    (tmp_path / "a.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        table(tmp_path / "a.parquet").columns  # noqa: B018
