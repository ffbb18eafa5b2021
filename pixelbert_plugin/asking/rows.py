"""Files of questions, a row each: CSV with a header, JSON Lines, or JSON (a list of objects). Rows are counted from 1."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.system.foreign import what_else

csv.field_size_limit(1 << 24)  # characters of a cell


@dataclass(frozen=True)
class Row:
    """One question of a file."""

    number: int  # from 1; a CSV's header is none
    values: dict[str, Any] = field(default_factory=dict)  # by column
    problem: str | None = None  # why it is none


def columns(path: Path, key: str) -> list[str]:
    """The columns of a file: those of a CSV's header, or of the first row that is one. Raises UserError where it has none."""
    if path.suffix.lower() == ".csv":
        with _reading(path, key) as lines:
            found = next(csv.reader(lines, strict=True), [])
        repeated = {name for name in found if found.count(name) > 1}
        if repeated:
            raise UserError(f"{key}={str(path)!r}: its column {min(repeated)!r} is duplicated")
    else:
        found = next((list(row.values) for row in read(path, key) if row.problem is None), [])
    if not found:
        raise UserError(f"{key}={str(path)!r}: holds no rows")
    return found


def read(path: Path, key: str) -> Iterator[Row]:
    """All rows, in order. Raises UserError where the file cannot be read on."""
    kind = path.suffix.lower()
    reader = _csv if kind == ".csv" else _json_lines if kind == ".jsonl" else _json
    return reader(path, key)


def _csv(path: Path, key: str) -> Iterator[Row]:
    with _reading(path, key) as lines:
        names: list[str] | None = None
        number = 0
        for cells in csv.reader(lines, strict=True):
            if names is None:
                names = cells
            elif cells:  # an empty line is no row
                number += 1
                problem = f"has {len(cells)} cells, the header {len(names)}" if len(cells) != len(names) else None
                yield Row(number, dict(zip(names, cells, strict=False)), problem)


def _json_lines(path: Path, key: str) -> Iterator[Row]:
    with _reading(path, key) as lines:
        number = 0
        for line in lines:
            if line.strip():
                number += 1
                try:
                    yield _row(number, json.loads(line, parse_constant=_no_json))
                except (ValueError, RecursionError) as error:
                    yield Row(number, problem=f"is no JSON ({error})")


def _json(path: Path, key: str) -> Iterator[Row]:
    with _reading(path, key) as file:
        try:
            found = json.load(file, parse_constant=_no_json)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{key}={str(path)!r}: is no JSON ({error})") from error
    if not isinstance(found, list):
        raise UserError(f"{key}={str(path)!r}: must hold a list of objects, [{{…}}, {{…}}]")
    for number, value in enumerate(found, 1):
        yield _row(number, value)


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _row(number: int, value: Any) -> Row:
    return Row(number, value) if isinstance(value, dict) else Row(number, problem="is no object, {…}")


@contextmanager
def _reading(path: Path, key: str) -> Iterator[Any]:
    if told := what_else(path):
        raise UserError(f"{key}={str(path)!r}: {told}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise UserError(f"{key}={str(path)!r}: is no UTF-8 text ({error.reason} at byte {error.start:,})") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{key}={str(path)!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
