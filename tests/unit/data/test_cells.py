"""What cells mean, by hand."""

import base64

import pytest

from pixelbert_plugin.data import cells


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("x", "x"), (" x\u00a0", "x"), (None, ""), (float("nan"), ""), (3, "3"), (0.5, "0.5"), (True, "true"), ("\ud83d", "?")],
)
def test_text(cell, expected):
    assert cells.text(cell) == expected


@pytest.mark.parametrize("cell", [["a"], {"a": 1}, b"a"])
def test_what_is_no_text(cell):
    with pytest.raises(ValueError, match="no text"):
        cells.text(cell)


@pytest.mark.parametrize(
    ("cell", "separator", "expected"),
    [
        ("red", None, ["red"]),
        ("red|dark red", None, ["red|dark red"]),
        ("red| dark red |", "|", ["red", "dark red"]),
        ('["red", "dark, red"]', None, ["red", "dark, red"]),  # JSON
        ("['red', \"it's\"]", None, ["red", "it's"]),  # as pandas writes a list
        (" red ", None, ["red"]),
        ([" red", "red "], None, ["red", "red"]),
        ("[red", None, ["[red"]),
        ("[1, 2]", None, ["1", "2"]),
        (["red", "", None, 3], None, ["red", "3"]),
        ([{"answer": "red", "answer_id": 1}, {"answer": "blue", "answer_id": 2}], None, ["red", "blue"]),  # as VQA's files
        ("__import__('os').listdir()", None, ["__import__('os').listdir()"]),
        ("[__import__('os').listdir()]", None, ["[__import__('os').listdir()]"]),  # nothing is run
        ("", None, []),
        (None, "|", []),
        (7, "|", ["7"]),
    ],
)
def test_answers(cell, separator, expected):
    assert cells.answers(cell, separator) == expected


@pytest.mark.parametrize("cell", ['["yes", "no"', " ['yes', 'no'", '["yes", no]', '[ "yes"; "no" ]'])
@pytest.mark.parametrize("separator", [None, "|"])
def test_a_list_that_is_cut_off_is_no_answer(cell, separator):
    with pytest.raises(ValueError, match=r"begins as a list and is none: .*yes.*; correct it"):
        cells.answers(cell, separator)


@pytest.mark.parametrize("cell", [True, "true", " TRUE ", "yes", "T", "y", "1", "1.0", 1, 1.0])
def test_true(cell):
    assert cells.label(cell) == "True"


@pytest.mark.parametrize("cell", [False, "False", "no", "F", "n", "0", "0.0", 0, 0.0])
def test_false(cell):
    assert cells.label(cell) == "False"


def test_other_labels():
    assert cells.label("") == cells.label(None) == ""
    with pytest.raises(ValueError, match=r"is 'maybe', not one of true, yes, t, y, 1, 1\.0, false, no, f, n, 0, 0\.0"):
        cells.label("maybe")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("17", 17), (17, 17), (17.0, 17), ("017", "017"), ("-3", -3), ("-0x", "-0x"), (" a ", "a"), ("1" * 19, "1" * 19)],
)
def test_ids(cell, expected):
    found = cells.sample_id(cell)
    assert found == expected and type(found) is type(expected)


def test_an_empty_id():
    with pytest.raises(ValueError, match="is empty"):
        cells.sample_id(" ")


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        (r"a\b.jpg", "a/b.jpg"),
        (" a b.jpg ", "a b.jpg"),
        (9, "9"),
        ({"bytes": None, "path": "a.jpg"}, "a.jpg"),
    ],
)
def test_a_path(cell, path):
    assert cells.image(cell) == cells.Image(path, path=path)


def test_content_is_known_by_itself():
    one, two = cells.image(b"abc"), cells.image({"bytes": b"abc", "path": "other.jpg"})
    three = cells.image("data:image/png;base64," + base64.b64encode(b"abc").decode())
    assert one == two == three and one.content == b"abc" and one.name != cells.image(b"abd").name


def test_a_url():
    assert cells.image("https://example.org/a.jpg") == cells.Image("https://example.org/a.jpg", url="https://example.org/a.jpg")


@pytest.mark.parametrize("cell", [None, "", " ", float("nan"), b"", {"bytes": None, "path": None}])
def test_no_image(cell):
    assert cells.image(cell) is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a\0b", "NUL"),
        ("x" * 10**6, "of 1,000,000 characters, no path"),
        (["a"], "is a list"),
        ({"url": 1}, "without bytes and path"),
        ("data:image/png;base64,!", "broken base64"),
    ],
)
def test_what_is_no_image(cell, message):
    with pytest.raises(ValueError, match=message):
        cells.image(cell)


def test_groups():
    assert cells.group("color", "kind") == {"kind": "color"} and cells.group("", "kind") == {}
    assert cells.group({"kind": "color", "hard": None, "n": 2}, "groups") == {"kind": "color", "n": "2"}
