"""Reading annotation files, with errors that name the file, the line and where to get it."""

import json
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import UserError


def read_json(path: Path, key: str, remedy: str = "") -> Any:
    """The content of a JSON file; `key` is the config key that names it. Raises UserError with file and line."""
    remedy = f"; {remedy}" if remedy else ""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{key}={str(path)!r}: no such file{remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}={str(path)!r}: cannot be read ({error}){remedy}") from error
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        if not isinstance(error, json.JSONDecodeError):
            raise UserError(f"{key}: {path}: cannot be parsed ({error}); download it again{remedy}") from error
        raise UserError(
            f"{key}: {path}, line {error.lineno}, column {error.colno}: broken JSON ({error.msg}); download it again{remedy}"
        ) from error


def field(record: Any, name: str, path: Path, index: int, kind: type | tuple[type, ...] = object) -> Any:
    """`record[name]`, of type `kind`; UserError with the file and the record's number where it is not there or another."""
    try:
        value = record[name]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: entry {index} has no {name!r}; is this the official file?") from error
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: entry {index}: {name!r} is {value!r:.80}, of another type; is this the official file?")
    return value
