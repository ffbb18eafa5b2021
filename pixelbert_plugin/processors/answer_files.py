"""Answer vocabularies as they are published: text with one answer a line, a JSON list, or a JSON mapping with indices."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.metrics.vqa import one_line
from pixelbert_plugin.system.foreign import what_else

FORMS = "give one answer a line, a JSON list of answers, or a JSON mapping of answers to indices"


def read_answers(path: Path, key: str) -> list[str]:
    """The answers of a vocabulary file, in the order of their indices; what the content looks like decides how it is read.

    "" is an answer: an entry of JSON, or a blank line of text that is not at the end. Raises UserError in one line, with
    `key`, the config key that names the file.
    """
    try:
        return _read(path)
    except ValueError as error:
        raise UserError(f"{key}={str(path)!r}: {error}") from error


def _read(path: Path) -> list[str]:
    if told := what_else(path):
        raise ValueError(f"{told}; {FORMS}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.object[error.start]:#04x} at {error.start}); {FORMS}") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    if not text.strip():
        raise ValueError(f"is empty; {FORMS}")
    if "\0" in text:
        raise ValueError(f"is binary (it holds a NUL); {FORMS}")
    answers = _lines(text) if (content := _json(path, text)) is None else _entries(content)
    answers = [one_line(answer) for answer in answers]
    for index, answer in enumerate(answers):
        _check_text(index, answer)
    repeated, number = Counter(answers).most_common(1)[0]
    if number > 1:
        places = [str(index + 1) for index, answer in enumerate(answers) if answer == repeated]
        raise ValueError(f"answer {repeated!r} is duplicated (entries {' and '.join(places[:2])}); remove one")
    return answers


def _json(path: Path, text: str) -> Any | None:
    """The list or mapping that the text is; None where it is no JSON of that kind, but lines."""
    if text.lstrip()[0] not in "[{":
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() == ".json" or '"' in text.lstrip()[:200]:
            raise ValueError(f"is broken JSON ({error}); {FORMS}") from error
        return None  # answers such as [unk]
    return content


def _entries(content: list[Any] | dict[str, Any]) -> list[str]:
    """The answers of a JSON list, of {answer: index}, or of {index: answer}."""
    if not content:
        raise ValueError(f"is empty; {FORMS}")
    if isinstance(content, list):
        for index, entry in enumerate(content):
            if not isinstance(entry, str):
                raise ValueError(f"entry {index + 1} is {_shown(entry)}, not a text; {FORMS}")
        return content
    if all(isinstance(value, str) and key.isdecimal() for key, value in content.items()):
        pairs = [(int(key), value) for key, value in content.items()]
    else:
        for key, value in content.items():
            if type(value) is not int:
                raise ValueError(f"{key!r} has {_shown(value)} where its index belongs; {FORMS}")
        pairs = [(value, key) for key, value in content.items()]
    pairs.sort()
    for place, (index, answer) in enumerate(pairs):
        if index != place:
            raise ValueError(f"its indices are not 0 to {len(pairs) - 1}: {answer!r} has {index} where {place} is expected")
    return [answer for _, answer in pairs]


def _lines(text: str) -> list[str]:
    """One answer a line; blank lines at the end are no answers."""
    return text.rstrip().split("\n")


def _check_text(index: int, answer: str) -> None:
    try:
        answer.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"entry {index + 1} holds half a surrogate pair ({answer!r:.80})") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
