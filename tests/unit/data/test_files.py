"""Annotation files read piece by piece, against json.loads; and what broken ones say."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin.data import files
from pixelbert_plugin.data.files import read_json_array, read_json_arrays, read_json_lines, require_files
from pixelbert_plugin.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def tiny_pieces(monkeypatch):
    """So that every value is cut in two somewhere."""
    monkeypatch.setattr(files, "PIECE", 7)


@settings(deadline=None, max_examples=80)
@given(values=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 0, 1]), ascii_only=st.booleans())
def test_elements_of_an_array_are_those_of_json(tmp_path_factory, values, indent, ascii_only):
    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii_only) + "\n ", encoding="utf-8", errors="replace")
    assert list(read_json_array(path, "key")) == json.loads(path.read_text(encoding="utf-8"))


@settings(deadline=None, max_examples=80)
@given(
    document=st.dictionaries(st.text(max_size=3), VALUES, max_size=4),
    first=st.lists(VALUES, max_size=4),
    second=st.lists(VALUES, max_size=4),
)
def test_arrays_of_an_object_are_those_of_json(tmp_path_factory, document, first, second):
    path = tmp_path_factory.getbasetemp() / "object.json"
    document = {"images": first, **document, "annotations": second}
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    read = list(read_json_arrays(path, "key", "", "annotations", "images"))
    assert read == [("images", value) for value in first] + [("annotations", value) for value in second]


@settings(deadline=None, max_examples=200)
@given(values=st.lists(VALUES, min_size=1, max_size=4), data=st.data())
def test_broken_text_is_refused_where_json_refuses_it(tmp_path_factory, values, data):
    path = tmp_path_factory.getbasetemp() / "broken.json"
    text = json.dumps(values, indent=1)
    at = data.draw(st.integers(2, len(text) - 1))  # the first bracket stays
    text = data.draw(st.sampled_from([text[:at], text[: at - 1] + text[at:], text[:at] + "!" + text[at:]]))
    path.write_text(text, encoding="utf-8")
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        with pytest.raises(UserError) as raised:
            list(read_json_array(path, "the.key", "the remedy"))
        line = str(raised.value)
        assert line.startswith(f"the.key: {path}, line ") and line.endswith("; the remedy") and "\n" not in line
        # the C and the streaming parser stop at the same place, but for a comma that ends an array
        assert int(line.split("line ")[1].split(",")[0]) in (error.lineno, error.lineno + 1)
    else:
        if isinstance(expected, list):
            assert list(read_json_array(path, "the.key")) == expected


def test_the_position_counts_lines_and_columns(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[\n {"a": 1},\n\n {"a": 2}, {"a": oops}]')
    with pytest.raises(UserError, match=r"line 4, column 18: broken JSON \(Expecting value\)"):
        list(read_json_array(path, "key"))
    path.write_text('[{"a": 1}, {"a": 2} {"a": 3}]')
    with pytest.raises(UserError, match=r"line 1, column 21: broken JSON \(Expecting ',' or '\]'\)"):
        list(read_json_array(path, "key"))
    path.write_text("[1]\n[2]")
    with pytest.raises(UserError, match=r"line 2, column 1: broken JSON \(Extra data"):
        list(read_json_array(path, "key"))


def test_missing_arrays_and_other_types_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"images": [1], "annotations": {"a": 1}}')
    with pytest.raises(UserError, match=r"'annotations' is \{'a': 1\}, not a list; is this the official file\?"):
        list(read_json_arrays(path, "key", "", "images", "annotations"))
    with pytest.raises(UserError, match="has no 'questions'; is this the official file"):
        list(read_json_arrays(path, "key", "", "questions"))
    for text, expected in (
        ("[1]", "holds a list, not an object; is this the official file"),
        (" ", "is empty; download it again"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS.*git lfs pull"),
        ("?", r"line 1, column 1: broken JSON \(Expecting '\{'\)"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=expected):
            list(read_json_arrays(path, "key", "", "images", "annotations"))
    path.write_text("{}")
    with pytest.raises(UserError, match="holds an object, not a list"):
        list(read_json_array(path, "key"))
    with pytest.raises(UserError, match=r"key=.*nothing.json.: no such file; look there"):
        list(read_json_array(tmp_path / "nothing.json", "key", "look there"))
    path.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(UserError, match="is no UTF-8 text"):
        list(read_json_array(path, "key"))
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"cannot be parsed|broken JSON"):
        list(read_json_array(path, "key"))


def test_a_bare_list_serves_where_one_array_is_asked_for(tmp_path):
    (tmp_path / "a.json").write_text('[{"question_id": 1}, 2]')
    assert list(read_json_arrays(tmp_path / "a.json", "key", "", "questions")) == [
        ("questions", {"question_id": 1}),
        ("questions", 2),
    ]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match=r"^the.key='.*': is a folder; name the file; look there$"):
        require_files([("the.key", tmp_path)], "look there")


def test_a_mark_of_byte_order_is_no_content(tmp_path):
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8-sig")
    assert list(read_json_array(tmp_path / "a.json", "key")) == [1]


def test_lines_are_numbered_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_json_lines(path, "key")) == [(1, {"a": 1}), (3, {"a": 2})]
    path.write_text('{"a": 1}\n\n{"a": 2, }\n')
    with pytest.raises(UserError, match=r"a.json, line 3, column \d+: broken JSON"):
        list(read_json_lines(path, "key"))


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.json", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (gzip.compress, r"a.json: is compressed by gzip; unpack it with gunzip \(key\); where$"),
        (zipped, "a.json: is a zip archive; unpack it with unzip"),
        (bz2.compress, "a.json: is compressed by bzip2; unpack it with bunzip2"),
        (lzma.compress, "a.json: is compressed by xz; unpack it with unxz"),
        (lambda content: content.decode().encode("utf-16"), "a.json: is UTF-16 or UTF-32 text; save it as UTF-8"),
        (lambda content: content.decode().encode("utf-32"), "a.json: is UTF-16 or UTF-32 text; save it as UTF-8"),
        (lambda content: "é".encode("latin-1").join([content[:2], content[2:]]), r"a.json: is no UTF-8 text \('utf-8' codec"),
        (lambda content: b" <!DOCTYPE html><title>404</title>", "a.json: is a web page, not the file itself"),
    ],
)
def test_what_is_taken_for_json_is_told_as_what_it_is(tmp_path, change, message):
    path = tmp_path / "a.json"
    path.write_bytes(change(json.dumps([{"question": "what is it?", "id": number} for number in range(9)]).encode()))
    with pytest.raises(UserError, match=message):
        list(read_json_array(path, "key", "where"))
