"""What cells of a table mean: texts, answers, labels, ids, images. Raises ValueError(reason) for what they cannot be."""

import ast
import json
import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pixelbert_plugin.data import unpacked
from pixelbert_plugin.data.files import as_text

TRUE, FALSE = ("true", "yes", "t", "y", "1", "1.0"), ("false", "no", "f", "n", "0", "0.0")  # 1.0: a number with gaps, by pandas
LABELS = dict.fromkeys(TRUE, "True") | dict.fromkeys(FALSE, "False")
OPEN_LIST = re.compile(r"""\[\s*["']""")  # how a written list of texts begins
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")  # a whole number as it is written by machines
LONGEST_NAME = 4096  # characters of a path


@dataclass(frozen=True)
class Image:
    """An image of a cell: one of content, url and path is there."""

    name: str  # what it is known by: a digest of its content, the URL, or the path
    content: bytes | None = None
    url: str | None = None
    path: str | None = None


def text(cell: Any) -> str:
    """The text of a cell without blanks around it, which nobody sees in a spreadsheet; "" for an empty one."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, str):
        return as_text(cell).strip()
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, bytes):
        raise ValueError("is bytes, no text")
    if isinstance(cell, list | tuple | dict):
        raise ValueError(f"is a {'mapping' if isinstance(cell, dict) else 'list'}, no text: {_shown(cell)}")
    return str(cell)


def is_empty(cell: Any) -> bool:
    """Whether nothing is in it."""
    if isinstance(cell, list | tuple | dict | bytes):
        return not cell
    return not text(cell)


def texts(cell: Any) -> list[str]:
    """The texts of a cell that may be a list; blank ones are left out."""
    found = [text(each) for each in cell] if isinstance(cell, list | tuple) else [text(cell)]
    return [each for each in found if each]


def answers(cell: Any, separator: str | None) -> list[str]:
    """The answers of a cell: a list (in a text file JSON's or Python's, ["a", "b"]), or a text, which `separator` divides.

    An element may be an annotator's record, {"answer": …}, as VQA's files have. Raises ValueError for a list that is cut off.
    """
    if isinstance(cell, str):
        listed = _list(cell.strip())
        if listed is None and OPEN_LIST.match(cell.strip()):  # as one answer it would be learned, and nobody would see it
            raise ValueError(f"begins as a list and is none: {_shown(cell)}; correct it")
        cell = listed if listed is not None else cell.split(separator) if separator else [cell]
    elif not isinstance(cell, list | tuple):
        cell = [cell]
    return texts([each["answer"] if isinstance(each, dict) and "answer" in each else each for each in cell])


def _list(written: str) -> list[Any] | None:
    """A list that is written out; None where the text is none."""
    if not (written.startswith("[") and written.endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):  # pandas writes lists as Python does
        try:
            found = read(written)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list) else None
    return None


def label(cell: Any) -> str:
    """ "True" or "False"; "" for an empty cell."""
    if isinstance(cell, float) and cell in (0.0, 1.0):
        cell = int(cell)
    found = text(cell)
    if not found:
        return ""
    if found.lower() not in LABELS:
        raise ValueError(f"is {_shown(found)}, not one of {', '.join(LABELS)}")
    return LABELS[found.lower()]


def sample_id(cell: Any) -> int | str:
    """A number where it is one, or written as one; else the text. Raises ValueError for an empty cell."""
    if isinstance(cell, float) and cell.is_integer():  # a column of numbers with gaps, as pandas has it
        cell = int(cell)
    found = text(cell)
    if not found:
        raise ValueError("is empty")
    return int(found) if NUMBER.fullmatch(found) else found


def group(cell: Any, column: str) -> dict[str, str]:
    """What a cell says of the kind of its row: {column: text}, or a mapping of such."""
    if isinstance(cell, dict):
        return {as_text(str(name)): text(kind) for name, kind in cell.items() if not is_empty(kind)}
    found = text(cell)
    return {column: found} if found else {}


def image(cell: Any) -> Image | None:
    """The image of a cell: content, URL or path; None for an empty one."""
    if isinstance(cell, dict):  # as Hugging Face writes an image
        if cell.get("bytes"):
            cell = cell["bytes"]
        elif "path" in cell:
            cell = cell["path"]
        else:
            raise ValueError(f"is a mapping without bytes and path: {_shown(cell)}")
    if isinstance(cell, bytes):
        return Image(unpacked.name_of(cell), content=cell) if cell else None
    written = text(cell)
    if not written:
        return None
    content = unpacked.of_data_url(written)
    if content is not None:
        return Image(unpacked.name_of(content), content=content)
    if "\0" in written:
        raise ValueError("holds the character NUL, which no path has")
    if len(written) > LONGEST_NAME:
        raise ValueError(f"is a text of {len(written):,} characters, no path")
    if unpacked.URL.match(written):
        return Image(written, url=written)
    path = str(PurePosixPath(written.replace("\\", "/")))  # as Windows writes it; ./a.jpg is a.jpg
    return Image(path, path=path)


def _shown(value: Any) -> str:
    return f"{value!r:.80}"
