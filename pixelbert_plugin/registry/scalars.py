"""A scalar of YAML or of the command line as the type of its field reads it: `010` is text for a str, ten for an int."""

import enum
import math
import os
import typing
from pathlib import Path
from typing import Any, Literal

from pixelbert_plugin.registry import yaml_text

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
MAX_DIGITS = 100  # of an integer: int() takes its time for thousands
SHOWN = 200  # most characters of a value in a message


class Expanded(str):
    """A path with the home folder put in for ~; `typed` is what was given, which a saved configuration keeps."""

    typed: str

    def __new__(cls, path: str, typed: str) -> "Expanded":
        made = super().__new__(cls, path)
        made.typed = typed
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # of a copy: those of our own __new__
        return str(self), self.typed


def read(kind: Any, node: Any) -> Any:
    """`node`, no list or mapping, as `kind`: str, int, float, bool, Path, an Enum or a Literal. Raises ValueError(reason)."""
    if typing.get_origin(kind) is Literal:
        return _choice(typing.get_args(kind), node)
    if kind is str:
        return _text(node)
    if kind is Path:
        return Path(expanded(_text(node)))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[_choice(tuple(kind.__members__), node)]
    if kind not in _READERS:
        raise ValueError(f"options cannot be of the type {kind}")
    reader, wanted = _READERS[kind]
    try:
        return reader(node.strip() if isinstance(node, str) else node)
    except OverflowError as error:
        raise ValueError("is too large") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"must be {wanted}") from error


def is_text(kind: Any) -> bool:
    """Whether a command line's value that looks like a list or mapping is text for this type all the same."""
    return kind in (str, Path) or typing.get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum))


def expanded(path: str) -> str:
    """A path with the home folder put in for ~. Raises ValueError for what no path can be."""
    found = os.path.expanduser(path)
    if "\0" in found:
        raise ValueError("a path cannot hold the character NUL")
    try:
        parts = [len(os.fsencode(part)) for part in found.split("/")]
    except UnicodeEncodeError as error:
        raise ValueError("holds a character that no file name can have") from error
    if sum(parts) + len(parts) > 4096 or max(parts) > 255:
        raise ValueError("is too long for a path")
    return found if found == path else Expanded(found, path)


def shown(node: Any) -> str:
    """A value as messages show it: as Python would, cut where it is long."""
    try:
        text = repr(yaml_text.value(node))
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = repr(node)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}…{text[-SHOWN // 4 :]} ({len(text):,} characters)"


def _text(node: Any) -> str:
    """Text as it is written. A number that Python made is written as Python would."""
    found = yaml_text.text(node) if isinstance(node, str) else node
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise ValueError("must be text; put it in quotes")
    found = str(found)
    if any("\ud800" <= character <= "\udfff" for character in found):
        raise ValueError("holds a character that is no Unicode text (a name that is not UTF-8?)")
    return found


def _choice(choices: tuple[Any, ...], node: Any) -> Any:
    found = yaml_text.text(node) if isinstance(node, str) else node
    for choice in choices:
        if (type(found) is type(choice) and found == choice) or (not isinstance(choice, str) and str(choice) == found):
            return choice
    *most, last = [str(choice) for choice in choices]
    raise ValueError(f"must be {', '.join(most)}{' or ' if most else ''}{last}")


def _boolean(word: Any) -> bool:
    if isinstance(word, bool):
        return word
    if str(word).lower() not in BOOLEANS:
        raise ValueError
    return BOOLEANS[str(word).lower()]


def _integer(word: Any) -> int:
    if isinstance(word, bool | float):
        raise ValueError
    digits = word.lstrip("+-") if isinstance(word, str) else ""
    if len(digits) > MAX_DIGITS and digits.isalnum():
        raise OverflowError
    number = int(word, 0 if digits[:2].lower() in ("0x", "0o", "0b") else 10) if isinstance(word, str) else int(word)
    if abs(number) >= 2**64:
        raise OverflowError
    return number


def _float(word: Any) -> float:
    if isinstance(word, bool):
        raise ValueError
    if isinstance(word, str) and word.lower().lstrip("+-") in (".inf", ".nan"):
        word = word.replace(".", "", 1)
    number = float(word)
    if math.isinf(number) and any(character.isdigit() for character in str(word)):
        raise OverflowError
    return number


_READERS = {bool: (_boolean, "true or false"), int: (_integer, "a whole number"), float: (_float, "a number")}
