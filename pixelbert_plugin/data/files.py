"""Reading annotation files, with errors that name the file, the line and where to get it."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.system.foreign import what_else

PIECE = 1 << 20  # characters read at a time
MARGIN = 32  # a value that ends this near to the end of what is read may go on (1 and 1.5)
BLANK = re.compile(r"[ \t\n\r]*")


def require_files(files: list[tuple[str, Path]], remedy: str) -> None:
    """Raises UserError that names every missing one of `files`: config key and path."""
    for found in files:
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], str) and isinstance(found[1], Path)):
            raise UserError(
                f"files(split) of a builder must give [(config key, path), …], a str and a Path each, not {found!r:.200}"
            )
    missing = [(key, path) for key, path in files if not os.path.exists(path)]
    if missing:
        (key, path), *others = missing
        nor = f", nor {', '.join(str(other) for _, other in others)}" if others else ""
        raise UserError(f"{key}={str(path)!r}: no such file{nor}; {remedy}")
    for key, path in files:
        if os.path.isdir(path):
            raise UserError(f"{key}={str(path)!r}: is a folder; name the file; {remedy}")


def missing_files(paths: list[Path]) -> list[Path]:
    """Those that are no files there: folder by folder, for a list of it is quick where 100,000 looks are not.

    One whose folder is no folder (an archive, for a processor of its own) counts as there.
    """
    listed: dict[str, set[str] | None] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _files_in(folder or ".")
        names = listed[folder]
        if names is not None and name not in names:
            missing.append(path)
    return missing


def _files_in(folder: str) -> set[str] | None:
    """None where it is no folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except FileNotFoundError:
        return set()
    except OSError:
        return None


def read_json(path: Path, key: str, remedy: str = "") -> Any:
    """The content of a JSON file; `key` is the config key that names it. Raises UserError with file and line."""
    with _opened(path, key, remedy) as file:
        return json.load(file)


def read_json_array(path: Path, key: str, remedy: str = "") -> Iterator[Any]:
    """The elements of a file that is one JSON array, one after the other: the memory is that of the largest element."""
    with _opened(path, key, remedy) as file:
        text = JsonText(file)
        _expect(text, "[", path)
        yield from text.elements()
        text.end()


def read_json_arrays(path: Path, key: str, remedy: str, *names: str) -> Iterator[tuple[str, Any]]:
    """(name, element) for the elements of the arrays `names` of a file that is one JSON object, as they come in it.

    Other members are passed over. A file that is the only array asked for, by itself, serves too (VQA-CP's are so).
    Raises UserError where one of the arrays is missing.
    """
    found = set()
    with _opened(path, key, remedy) as file:
        text = JsonText(file)
        if text.peek() == "[" and len(names) == 1:
            yield from ((names[0], element) for element in text.elements())
            text.end()
            return
        _expect(text, "{", path)
        for name in text.members():
            if name not in names:
                text.value()
                continue
            found.add(name)
            if text.peek() != "[":
                raise UserError(f"{path}: {name!r} is {text.value()!r:.80}, not a list; is this the official file?")
            for element in text.elements():
                yield name, element
        text.end()
    for name in names:
        if name not in found:
            raise UserError(f"{path}: has no {name!r}; is this the official file?")


def read_json_lines(path: Path, key: str, remedy: str = "") -> Iterator[tuple[int, Any]]:
    """(line number, value) for each line of a file of JSON values, one a line; blank lines are passed over."""
    with _opened(path, key, remedy) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise BrokenJson(error.msg, number, error.colno) from error


def field(record: Any, name: str, path: Path, index: int, kind: type | tuple[type, ...] = object, unit: str = "entry") -> Any:
    """`record[name]`, of type `kind`; UserError with the file and the record's number where it is not there or another."""
    try:
        value = record[name]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: {unit} {index} has no {name!r}; is this the official file?") from error
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: {unit} {index}: {name!r} is {value!r:.80}, of another type; is this the official file?")
    return as_text(value) if isinstance(value, str) else value


def listed(words: Sequence[str], last: str = "and") -> str:
    """ "a, b and c"."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def as_text(value: str) -> str:
    """JSON may hold half a surrogate pair ("\\ud83d"), which is no text: "?" in its place."""
    return value if value.isascii() else value.encode(errors="replace").decode()


class OneType:
    """The ids of `source`, which are all numbers or all texts: a mix is of two releases."""

    def __init__(self, source: object):
        self._source = source
        self._type: type | None = None

    def __call__(self, value: int | str) -> int | str:
        """The id. Raises UserError where those before were of another type."""
        if type(value) is not self._type:
            if self._type is not None:
                raise UserError(f"{self._source}: id {value!r} after ids of another type; make them all numbers or all texts")
            self._type = type(value)
        return value


def _expect(text: "JsonText", opening: str, path: Path) -> None:
    """Raises UserError where the file is no text of the kind that opens so, though to download it again would not help."""
    kinds, found = {"[": "a list", "{": "an object"}, text.peek()
    if not found:
        raise UserError(f"{path}: is empty; download it again")
    if found in kinds and found != opening:
        raise UserError(f"{path}: holds {kinds[found]}, not {kinds[opening]}; is this the official file?")
    if found not in kinds and (told := what_else(path)):
        raise UserError(f"{path}: {told}")


class BrokenJson(ValueError):
    """Text that is no JSON, and where; named as json.JSONDecodeError names it, which needs the whole text."""

    def __init__(self, msg: str, lineno: int, colno: int):
        super().__init__(msg)
        self.msg, self.lineno, self.colno = msg, lineno, colno


class JsonText:
    """A JSON text read piece by piece: `peek`, `value`, `elements` and `members` move through it and forget what is past."""

    def __init__(self, file: TextIO):
        self._file, self._text, self._at, self._is_all = file, "", 0, False
        self._lines = self._columns = 0  # of the forgotten text: newlines, and characters after the last of them
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            self._at = BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]  # no blank matches too
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_all:
                return ""
            self._more()

    def value(self) -> Any:
        """The value that stands next, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                is_inside = error.pos < len(self._text) - MARGIN and not error.msg.startswith("Unterminated string")
                if self._is_all or is_inside:
                    raise self._broken(error.msg, error.pos) from error
            else:
                if self._is_all or end < len(self._text) - MARGIN:
                    self._at = end
                    return value
            self._more()

    def elements(self) -> Iterator[Any]:
        """The elements of the array that stands next."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def members(self) -> Iterator[str]:
        """The names of the object that stands next; the caller reads each one's value before it asks for the next."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            if self.peek() != '"':
                raise self._broken("Expecting property name enclosed in double quotes", self._at)
            name = self.value()
            self._take(":")
            yield name
            if self._take(",}") == "}":
                return

    def end(self) -> None:
        if self.peek():
            raise self._broken("Extra data", self._at)

    def _take(self, characters: str) -> str:
        found = self.peek()
        if not found or found not in characters:
            raise self._broken(f"Expecting {' or '.join(map(repr, characters))}", self._at)
        self._at += 1
        return found

    def _more(self) -> None:
        past, rest = self._text[: self._at], self._text[self._at :]
        self._lines, self._columns = self._position(len(past))
        piece = self._file.read(max(PIECE, len(rest)))  # twice as much where a long value goes on, so that it stays linear
        self._text, self._at, self._is_all = rest + piece, 0, not piece

    def _position(self, at: int) -> tuple[int, int]:
        """Newlines before, and characters since the last newline."""
        newlines = self._text.count("\n", 0, at)
        columns = at - self._text.rfind("\n", 0, at) - 1 if newlines else self._columns + at
        return self._lines + newlines, columns

    def _broken(self, message: str, at: int) -> BrokenJson:
        line, column = self._position(at)
        return BrokenJson(message, line + 1, column + 1)


@contextmanager
def _opened(path: Path, key: str, remedy: str) -> Iterator[TextIO]:
    """The open file; what goes wrong while it is read becomes one line that names `key`, file, line and remedy."""
    remedy = f"; {remedy}" if remedy else ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{key}={str(path)!r}: no such file{remedy}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {what_else(path) or f'is no UTF-8 text ({error})'} ({key}){remedy}") from error
    except OSError as error:
        raise UserError(f"{key}={str(path)!r}: cannot be read ({error}){remedy}") from error
    except (json.JSONDecodeError, BrokenJson) as error:
        if told := what_else(path):
            raise UserError(f"{path}: {told} ({key}){remedy}") from error
        raise UserError(
            f"{key}: {path}, line {error.lineno}, column {error.colno}: broken JSON ({error.msg}); download it again{remedy}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise UserError(f"{key}: {path}: cannot be parsed ({error}); download it again{remedy}") from error
