"""Dataclasses as schemas: read a YAML node into one, with errors that name the key, the value and the near spellings.

A field's type decides what a scalar means: `010` is text for a str, ten for an int (see scalars.py).
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from typing import Annotated, Any, Literal, TypeVar

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import scalars, yaml_text
from pixelbert_plugin.registry.scalars import SHOWN, shown
from pixelbert_plugin.registry.yaml_text import Typed

Kind = Literal[
    "model",
    "encoder",
    "processor",
    "builder",
    "task",
    "metric",
    "optimizer",
    "scheduler",
    "precision",
    "checkpoint_reader",
    "tracker",
    "explanation",
]
T = TypeVar("T")
FilePath = Annotated[str, "path"]  # a file or folder, or a name where a name may stand instead: ~/ means the home folder
Options = Annotated[Any, "options"]  # of a component: a mapping, and once the component is known, its Config (config.configure)
Sections = Annotated[dict[str, Any], "options"]  # Options by component

UNTYPED = "params given before the type"  # of a component's node: they are of the default type (see config/files.py)


class ConfigError(UserError):
    """A wrong value in the configuration; `key` is its full path, so that its file can be named."""

    def __init__(self, key: str, message: str):
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key


class UnknownComponentError(ConfigError):
    """No `kind` is registered as `name`: a misspelling, or the plugin that defines it is not loaded."""

    def __init__(self, key: str, message: str, kind: Kind, name: str):
        super().__init__(key, message)
        self.kind, self.name = kind, name


@dataclasses.dataclass
class Component:
    """A component by its registered name, as MMF writes it: `{type: resnet50, params: {…}}`."""

    type: str = ""  # registered name
    params: Options = dataclasses.field(default_factory=dict)  # its options, see `pixelbert-run --describe`


def component(kind: Kind, name: str, **params: Any) -> Any:
    """A dataclass field that holds a component of `kind`, by default `name` with `params`."""
    return dataclasses.field(default_factory=lambda: Component(name, dict(params)), metadata={"kind": kind})


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What a field holds where nothing is given; dataclasses.MISSING where that is an error."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def nearest(name: str, known: list[str]) -> str:
    """ "; did you mean X?" for the nearest spelling, and the list of what is known."""
    spelt = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name[:SHOWN], known, n=1, cutoff=0.5)
    close = close or [spelt[each] for each in difflib.get_close_matches(name[:SHOWN].lower(), spelt, n=1, cutoff=0.5)]
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint} (known: {', '.join(sorted(known)) or 'none'})"


def merge(schema: type[T], node: Any, path: str = "") -> T:
    """Read `node` (a mapping) over the defaults of the dataclass `schema` and return an instance.

    Raises ConfigError for an unknown key, a value of the wrong type or a value the dataclass's own `check()` refuses.
    """
    config: T = _read(schema, {} if yaml_text.is_null(node) else node, path)
    _check(config, path)
    return config


def require(config: Any, *names: str, low: float | None = None, high: float | None = None, above: float | None = None) -> None:
    """For a dataclass's `check()`: its fields `names` (or None) must be finite numbers in low…high, and more than `above`.

    Raises ValueError("field: what is wrong").
    """
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, list) else [value]:
            if number is None:
                continue
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name}: must be finite")
            if above is not None and number <= above:
                raise ValueError(f"{name}: must be above {above}")
            if low is not None and number < low:
                raise ValueError(f"{name}: must be at least {low}")
            if high is not None and number > high:
                raise ValueError(f"{name}: must be at most {high}")


def _read(kind: Any, node: Any, path: str, default: Component | None = None) -> Any:
    """`node` as a value of the type `kind`; `default` is the component that a field holds if nothing is given."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        if "options" in kind.__metadata__:
            return _mapping(node, path, "(key: value)")
        if "path" in kind.__metadata__:
            return node if isinstance(node, scalars.Expanded) else _path(_read(arguments[0], node, path), path)
        return _read(arguments[0], node, path)
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, node, path)
    if kind is Component:
        return _component(default or Component(), node, path)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind, node, path)
    if kind is dict or origin is dict:
        inner = arguments[1] if arguments else Any
        items = _mapping(node, path, "(key: value)").items()
        if inner is Component:
            _refuse_options(dict(items), path)
        return {_scalar(str, key, path): _read(inner, value, _join(path, key)) for key, value in items}
    if kind in (list, tuple) or origin in (list, tuple):
        return _list(origin or kind, arguments, node, path)
    if kind is Any:
        return _anything(node, path)
    if isinstance(node, Typed) and not scalars.is_text(kind):
        node = yaml_text.structure(node)
    if isinstance(node, dict | list):
        raise ConfigError(path, f"{shown(node)} is not a single value")
    return _scalar(kind, node, path)


def _dataclass(kind: type, node: Any, path: str) -> Any:
    node = _mapping(node, path, "of options (key: value)")
    hints, fields = type_hints(kind), {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in node:
        if key not in fields:
            raise ConfigError(_join(path, key), _unknown(key, list(fields)))
    values = {}
    for name, field in fields.items():
        is_required = default_of(field) is dataclasses.MISSING
        here = _join(path, name)
        if name in node:
            default = default_of(field) if hints[name] is Component and not is_required else None
            values[name] = _read(hints[name], node[name], here, default)
            if typing.get_origin(hints[name]) is dict and not is_required:  # what is not named keeps its default
                values[name] = default_of(field) | values[name]
        elif is_required:
            raise ConfigError(here, "is not set, and has no default; set it")
        elif (isinstance(field.default, str) and "path" in _metadata(hints[name])) or type(field.default) is int:
            values[name] = _read(hints[name], field.default, here)  # with ~ put in; 1800 as a float where it is one
    try:
        return kind(**values)
    except ValueError as error:  # of a __post_init__
        raise ConfigError(path, str(error)) from error


def _component(default: Component, node: Any, path: str) -> Component:
    """The component of a node. Options that belong to another type than the one chosen are left out."""
    given = yaml_text.structure(node)
    if not isinstance(given, dict):
        hint = f"; write {path}.type={given}" if isinstance(given, str) and given and not yaml_text.is_null(given) else ""
        raise ConfigError(path, f"{shown(node)} is not a mapping of options (key: value){hint}")
    for key in given:
        if key not in ("type", "params", UNTYPED):
            raise ConfigError(_join(path, key), _unknown(key, ["type", "params"]))
    name = _read(str, given["type"], _join(path, "type")) if "type" in given else default.type
    params = [_mapping(given.get(key, {}), _join(path, "params"), "(key: value)") for key in (UNTYPED, "params")]
    if name != default.type and default.type:
        return Component(name, params[1])
    return Component(name, functools.reduce(_over, params, default.params))


def _refuse_options(given: dict[str, Any], path: str) -> None:
    """Raises ConfigError where components by name hold an option of one of them, as optimizer.lr."""
    names = [name for name, node in given.items() if isinstance(yaml_text.structure(node), dict)]
    for key, node in given.items():
        if key in ("type", "params") or isinstance(yaml_text.value(node), int | float):
            below = key if key in ("type", "params") else f"params.{key}"
            meant = " or ".join(f"{_join(path, name)}.{below}" for name in names if name != key) or f"{path}.NAME.{below}"
            raise ConfigError(_join(path, key), f"belongs to one component; write {meant}")


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` merged into a copy of `below`, key by key."""
    both = {key: _over(below[key], value) for key, value in above.items() if _are_mappings(below.get(key), value)}
    return below | above | both


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, dict) and value for value in values)


def _mapping(node: Any, path: str, of: str) -> dict[str, Any]:
    found = yaml_text.structure(node)
    if not isinstance(found, dict):
        raise ConfigError(path, f"{shown(node)} is not a mapping {of}")
    for key, value in found.items():
        name, colon, rest = str(key).partition(":")
        if colon and name and rest and yaml_text.is_null(value):  # YAML takes {train:a.csv} for a name without a value
            raise ConfigError(path, f"{shown(key)}: a blank after the colon is missing; write {name}: {rest}")
    return {str(key): value for key, value in found.items()}


def _list(
    kind: type[list[Any]] | type[tuple[Any, ...]], arguments: tuple[Any, ...], node: Any, path: str
) -> list[Any] | tuple[Any, ...]:
    found = yaml_text.structure(node)
    if not isinstance(found, list | tuple):
        raise ConfigError(path, f"{shown(node)} is not a list, as in [a, b]")
    if kind is tuple and arguments and arguments[-1] is not ...:
        if len(found) != len(arguments):
            raise ConfigError(path, f"{shown(node)} is invalid: must have {len(arguments)} items")
        inner = list(arguments)
    else:
        inner = [arguments[0] if arguments else Any] * len(found)
    return kind(_read(each, item, f"{path}[{index}]") for index, (each, item) in enumerate(zip(inner, found, strict=True)))


def _one_of(kinds: tuple[Any, ...], node: Any, path: str) -> Any:
    """A value of one of several types: the one that YAML reads it as, else the first that takes it."""
    if type(None) in kinds and yaml_text.is_null(node):
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) > 1:
        read_as = type(_anything(node, path))
        plain = [typing.get_origin(kind) or kind for kind in kinds]
        for wanted in (read_as, *([float] if read_as is int else [])):
            if wanted in plain:
                return _read(kinds[plain.index(wanted)], node, path)
    errors = []
    for kind in kinds:
        try:
            return _read(kind, node, path)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _scalar(kind: Any, node: Any, path: str) -> Any:
    try:
        return scalars.read(kind, node)
    except ValueError as error:
        raise ConfigError(path, f"{shown(node)} is invalid: {error}") from error


def _path(found: str | None, path: str) -> str | None:
    try:
        return scalars.expanded(found) if found else found
    except ValueError as error:
        raise ConfigError(path, f"{shown(found)} is invalid: {error}") from error


def _anything(node: Any, path: str) -> Any:
    try:
        return yaml_text.value(node)
    except ValueError as error:
        raise ConfigError(path, f"{shown(node)} is invalid: is too large") from error


@functools.cache
def type_hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, also where its module postpones annotations."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception as error:  # a plugin's annotations can raise anything
        raise UserError(f"{kind.__module__}.{kind.__qualname__}: the types of its options cannot be read ({error})") from error


def _metadata(kind: Any) -> tuple[Any, ...]:
    """What Annotated says of a type, or of a part of a union."""
    kinds = [kind, *typing.get_args(kind)]
    return tuple(mark for each in kinds for mark in getattr(each, "__metadata__", ()))


def _unknown(key: str, known: list[str]) -> str:
    head, dot, rest = key.partition(".")
    if dot and head in known:
        return f"unknown key; in a file write it as {head}: {{{rest}: …}}"
    return f"unknown key{nearest(key, known)}"


def _check(value: Any, path: str) -> None:
    """Let every dataclass in `value` check itself: `check()` raises ValueError("field: what is wrong")."""
    if dataclasses.is_dataclass(value):
        try:
            getattr(value, "check", lambda: None)()
        except ValueError as error:
            name, _, reason = str(error).partition(": ")
            if not hasattr(value, name):
                raise ConfigError(path, str(error)) from error
            raise ConfigError(_join(path, name), f"{shown(getattr(value, name))} is invalid: {reason}") from error
        except Exception as error:  # a plugin's check is wrong
            what = f"{type(value).__qualname__}.check() fails ({type(error).__name__}: {error}); --debug shows where"
            raise ConfigError(path, what) from error
        for field in dataclasses.fields(value):
            _check(getattr(value, field.name), _join(path, field.name))
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(item, _join(path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")


def _join(path: str, key: str) -> str:
    return ".".join(part for part in (path, str(key)) if part)
