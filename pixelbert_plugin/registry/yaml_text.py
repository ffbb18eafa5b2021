"""YAML whose scalars keep their text: what `010`, `1e5` or `no` means is decided where the type of the option is known.

A file gives nested dicts and lists with leaves `Plain` (an unquoted scalar) and `str` (a quoted one); a value of the
command line is `Typed`. Numbers, booleans and null are those of YAML 1.2's core schema.
"""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from pixelbert_plugin.errors import UserError

MAX_BYTES = 1_000_000  # of a file: more is no configuration
MAX_VALUES = 20_000  # of a file or an option, with every use of an anchor counted ("a billion laughs")
MAX_DEPTH = 64  # mappings and lists within each other
DEEP = re.compile(rf"([\[{{]\s*){{{MAX_DEPTH + 1}}}")  # PyYAML takes ten seconds to find out
STR, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
TAGS = (STR, MERGE, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

NULLS = ("", "~", "null", "Null", "NULL")
BOOLEANS = {spelling: word == "true" for word in ("true", "false") for spelling in (word, word.capitalize(), word.upper())}
INTEGER = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Plain(str):
    """An unquoted scalar, as it is written."""

    __slots__ = ()


class Typed(Plain):
    """A value of the command line, as it was typed: a YAML list, mapping or quoted text, or a scalar as it is."""

    __slots__ = ()


class YamlError(ValueError):
    """What is wrong with a YAML text, and in which line."""


def read(file: Path) -> Any:
    """The content of a YAML file. Raises UserError that names the file and the line."""
    try:
        return parse(_text(file))
    except YamlError as error:
        raise UserError(f"{file}: {error}") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def parse(text: str) -> Any:
    """Nested dicts and lists of Plain and str. Raises YamlError."""
    if DEEP.search(text):
        raise YamlError(f"is nested deeper than {MAX_DEPTH} levels")
    try:
        node = yaml.compose(text, Loader=_Loader)
        return Plain("") if node is None else _Reader().value(node, 0, "")
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise YamlError(f"{line}not valid YAML: {error.problem or error.context}{hint}") from error
    except yaml.reader.ReaderError as error:
        character = error.character if isinstance(error.character, str) else chr(error.character)
        number = text.count("\n", 0, error.position) + 1
        raise YamlError(f"line {number}: not valid YAML: the character {character!r} must be written as an escape") from error
    except RecursionError as error:
        raise YamlError(f"is nested deeper than {MAX_DEPTH} levels") from error
    except (ValueError, OverflowError) as error:  # PyYAML's own, for an escape that is no character
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"not valid YAML: {error}") from error


def structure(node: Any) -> Any:
    """What a value is where no text is wanted: a list or mapping of the command line is read as YAML."""
    if not isinstance(node, Typed):
        return node
    try:
        parsed = parse(node)
    except YamlError:
        return Plain(node)
    return Plain(node) if isinstance(parsed, Plain) else parsed


def unfolded(node: Any) -> Any:
    """A tree in which what was typed as {a: 1} or [a] is a mapping or list; scalars are as they were written."""
    inner = structure(node)
    if isinstance(inner, dict):
        return {key: unfolded(value) for key, value in inner.items()}
    return [unfolded(value) for value in inner] if isinstance(inner, list) else node


def text(node: str) -> str | None:
    """What a scalar is where text is wanted: as it is written; None for an unquoted null."""
    if isinstance(node, Typed) and node.strip()[:1] in ('"', "'") and type(quoted := structure(node)) is str:
        return quoted
    return None if is_null(node) else str(node)


def is_null(node: Any) -> bool:
    return node is None or (isinstance(node, Plain) and node.strip() in NULLS)


def value(node: Any) -> Any:
    """What a value is where nothing is known of its type: by YAML's core schema. Raises ValueError for a number too long."""
    node = structure(node)
    if isinstance(node, dict):
        return {key: value(item) for key, item in node.items()}
    if isinstance(node, list):
        return [value(item) for item in node]
    return scalar(node.strip()) if isinstance(node, Plain) else node


def scalar(text: str) -> str | int | float | bool | None:
    """An unquoted scalar by YAML's core schema."""
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if INTEGER.fullmatch(text):
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return str(text)


def dump(node: Any, is_flow: bool = False) -> str:
    """YAML that reads back equal, here and by YAML 1.1's readers. `is_flow`: in one line, as in {a: [1, 2]}."""
    shown = yaml.dump(
        _escaped(node),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
        default_flow_style=is_flow or False,
    )
    return shown.removesuffix("...\n").strip("\n") if is_flow else shown


def _escaped(node: Any) -> Any:
    """A tree in which ${ does not ask for another key's value: it came from what was resolved already."""
    if isinstance(node, dict):
        return {key: _escaped(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_escaped(value) for value in node]
    if type(node) is str and "${" in node:
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", node)
    return node


def _text(file: Path) -> str:
    """The characters of a regular file of UTF-8, or of UTF-16 with its mark. Raises YamlError and OSError."""
    info = file.stat()
    if not stat.S_ISREG(info.st_mode):
        kind = "a folder" if stat.S_ISDIR(info.st_mode) else "a pipe or device"
        raise YamlError(f"is {kind}, not a YAML file")
    if info.st_size > MAX_BYTES:
        raise YamlError(f"has {info.st_size:,} bytes: too many for a configuration (at most {MAX_BYTES:,}); name a YAML file")
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)  # files of /proc tell no size
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        found = content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise YamlError("is a binary file, not YAML") from error
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise YamlError(f"line {line}: is not UTF-8 text (byte {byte:#04x}); save the file as UTF-8") from error
    if "\0" in found:
        raise YamlError("is a binary file, not YAML")
    return found


class _Loader(yaml.SafeLoader):
    """Takes every unquoted scalar for text, but for the merge key `<<`."""

    yaml_implicit_resolvers = {"<": [(MERGE, re.compile(r"^(?:<<)$"))]}


class _Reader:
    """Nodes of PyYAML → dicts, lists and scalars. Aliases are followed, and counted."""

    def __init__(self) -> None:
        self.count = 0

    def value(self, node: yaml.Node, depth: int, path: str) -> Any:
        self.count += 1
        line = f"line {node.start_mark.line + 1}: "
        if self.count > MAX_VALUES:
            raise YamlError(f"{line}holds more than {MAX_VALUES:,} values, each use of an anchor (&) counted")
        if depth > MAX_DEPTH:
            raise YamlError(f"{line}is nested deeper than {MAX_DEPTH} levels")
        if node.tag not in TAGS:
            raise YamlError(f"{line}the tag {node.tag!r} is not supported; write the value without it")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, depth, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1, f"{path}[{index}]") for index, item in enumerate(node.value)]
        return Plain(node.value) if isinstance(node, yaml.ScalarNode) and node.style is None else str(node.value)

    def mapping(self, node: yaml.MappingNode, depth: int, path: str) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == MERGE and key_node.style is None:
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if not isinstance(source, yaml.MappingNode):
                        raise YamlError(f"line {line}: <<: needs a mapping, as in <<: *anchor")
                    merged = self.value(source, depth + 1, path) | merged
                continue
            if not isinstance(key_node, yaml.ScalarNode) or not str(key_node.value).strip():
                raise YamlError(f"line {line}: a key must be a word, as in key: value")
            key = str(key_node.value)
            here = f"{path}.{key}" if path else key
            if key in own:
                raise YamlError(f"line {line}: {here} is duplicated (it is in line {lines[key]} already); keep one of them")
            lines[key] = line
            own[key] = self.value(value_node, depth + 1, here)
        return merged | own


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would not read as the same text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # equal lists that share an object are written twice, not as *id001


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    is_simple = text.isprintable() and not isinstance(_scalar_or_none(text), int | float | None) and text == text.strip()
    return dumper.represent_scalar(STR, text, style=None if is_simple else '"')


def _scalar_or_none(text: str) -> Any:
    try:
        return scalar(text)
    except ValueError:  # a number of thousands of digits
        return None


def _represent_plain(dumper: yaml.SafeDumper, text: Plain) -> yaml.Node:
    return dumper.represent_data(value(text))


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(Plain, _represent_plain)
_Dumper.add_representer(Typed, _represent_plain)
