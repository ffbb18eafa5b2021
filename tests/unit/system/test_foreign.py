"""What lies under another file's name is told as what it is, by every reader of files."""

import gzip

import pytest

from pixelbert_plugin import registry
from pixelbert_plugin.asking import rows
from pixelbert_plugin.checkpoint import export
from pixelbert_plugin.checkpoint.weights import read_file
from pixelbert_plugin.data.files import read_json, read_json_array, read_json_lines
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.answer_files import read_answers
from pixelbert_plugin.system.foreign import what_else


def vocabulary(path):
    name = "vocab.txt" if path.suffix == ".txt" else "tokenizer.json"
    (path.parent / name).write_bytes(path.read_bytes())
    registry.build("processor", "bert_tokenizer", {"vocabulary": str(path.parent)}, "processors.text.params")


READERS = {
    "a.json": lambda path: read_json(path, "key"),
    "array.json": lambda path: list(read_json_array(path, "key")),
    "lines.json": lambda path: list(read_json_lines(path, "key")),
    "answers.txt": lambda path: read_answers(path, "key"),
    "questions.csv": lambda path: rows.columns(path, "key"),
    "questions.jsonl": lambda path: rows.columns(path, "key"),
    "a.pth": read_file,
    "a.safetensors": read_file,
    "exported.safetensors": lambda path: export.read_content(path, "key"),
    "words.txt": vocabulary,
    "words.json": vocabulary,
}
CONTENTS = {
    "pointer of Git LFS.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "web page": b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "error message": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "compressed by gzip; unpack it with gunzip": gzip.compress(b"red\nyes\n"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("message", CONTENTS)
def test_every_reader_says_what_a_file_is(tmp_path, name, message):
    (tmp_path / name).write_bytes(CONTENTS[message])
    with pytest.raises((UserError, ValueError), match=message):
        READERS[name](tmp_path / name)


def test_what_says_nothing_is_left_to_its_reader(tmp_path):
    path = tmp_path / "a"
    assert what_else(path) == "" == what_else(tmp_path)
    path.write_bytes(b"red\n<b>\n")
    assert what_else(path) == ""
    path.write_bytes(b"PK\x03\x04")
    assert "zip" in what_else(path) and what_else(path, but=(b"PK\x03\x04",)) == ""
