"""The vocabulary of the world, as BERT's vocab.txt: one that pre-training and every fine-tuning can share."""

import json
import re
import string
from collections.abc import Iterator
from typing import Any

from pixelbert_plugin.miniature.plan import Plan

PATH = "vocabulary/vocab.txt"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXT_KEYS = {"caption", "raw", "phrase", "question", "sentence"}  # where the official files hold texts


def plan_vocabulary(plan: Plan) -> None:
    """Add to the plan every word of its texts, and characters, so that any other word can be spelled."""
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [*characters, *(f"##{character}" for character in characters)]
    words = sorted({word for text in plan.files.values() for word in _words(text)})
    plan.files[PATH] = "".join(f"{piece}\n" for piece in dict.fromkeys([*SPECIAL, *pieces, *words]))


def _words(file: str) -> Iterator[str]:
    """The words of a JSON or JSON-lines file's texts, in lower case."""
    try:
        content = [json.loads(file)]
    except json.JSONDecodeError:
        content = [json.loads(line) for line in file.splitlines()]
    for text in _texts(content):
        yield from re.findall(r"[a-z]+", text.lower())


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from [value] if key in TEXT_KEYS and isinstance(value, str) else _texts(value)
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item)
