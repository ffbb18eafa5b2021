"""Dataclasses as schemas: merge a YAML node into one, with errors that name the key, the value and the near spellings."""

import dataclasses
import difflib
import math
import types
import typing
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pixelbert_plugin.errors import UserError

Kind = Literal["model", "encoder", "processor", "builder", "task", "metric", "optimizer", "scheduler", "precision"]


class ConfigError(UserError):
    """A wrong value in the configuration; `key` is its full path, so that its file can be named."""

    def __init__(self, key: str, message: str):
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key


@dataclasses.dataclass
class Component:
    """A component by its registered name, as MMF writes it: `{type: resnet50, params: {…}}`."""

    type: str = ""  # registered name
    params: dict[str, Any] = dataclasses.field(default_factory=dict)  # its options, see `pixelbert-run --describe`


def component(kind: Kind, name: str, **params: Any) -> Any:
    """A dataclass field that holds a component of `kind`, by default `name` with `params`."""
    return dataclasses.field(default_factory=lambda: Component(name, dict(params)), metadata={"kind": kind})


def nearest(name: str, known: list[str]) -> str:
    """ "; did you mean X?" for the nearest spelling, and the list of what is known."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint} (known: {', '.join(sorted(known)) or 'none'})"


def merge(schema: type, node: Any, path: str = "") -> Any:
    """Merge `node` (a mapping) into the defaults of the dataclass `schema` and return an instance.

    Raises ConfigError for an unknown key, a value of the wrong type or a value the dataclass's own `check()` refuses.
    """
    _check_shape(schema, node or {}, path)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(node or {}))
        result = OmegaConf.to_object(merged)
    except (ConfigKeyError, ConfigAttributeError) as error:
        key = error.full_key or str(error.key)
        level = _level(schema, key)
        known = [field.name for field in dataclasses.fields(level)] if level else []
        raise ConfigError(_join(path, key), f"unknown key{nearest(key.split('.')[-1], known)}") from error
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        reason = str(error).splitlines()[0]
        shown = f"{_lookup(node, key)!r} is refused: {reason}"
        raise ConfigError(_join(path, key), shown) from error
    _check(result, path)
    return result


def require(config: Any, *names: str, low: float | None = None, high: float | None = None, above: float | None = None) -> None:
    """For a dataclass's `check()`: its fields `names` (or None) must be finite numbers in low…high, and more than `above`.

    Raises ValueError("field: what is wrong").
    """
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, list) else [value]:
            if number is None:
                continue
            if not math.isfinite(number):
                raise ValueError(f"{name}: must be finite")
            if above is not None and number <= above:
                raise ValueError(f"{name}: must be above {above}")
            if low is not None and number < low:
                raise ValueError(f"{name}: must be at least {low}")
            if high is not None and number > high:
                raise ValueError(f"{name}: must be at most {high}")


def _check_shape(kind: Any, node: Any, path: str) -> None:
    """Refuse a mapping where a list or a value belongs, and so on: omegaconf's words for that name no key."""
    if isinstance(node, str) and "${" in node:  # an interpolation
        return
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if node is not None:
            _check_shape(next(argument for argument in arguments if argument is not type(None)), node, path)
    elif dataclasses.is_dataclass(kind):
        if not isinstance(node, dict):
            raise ConfigError(path, f"{node!r} is not a mapping of options (key: value)")
        for field in dataclasses.fields(kind):
            if field.name in node:
                _check_shape(field.type, node[field.name], _join(path, field.name))
    elif origin is dict:
        if not isinstance(node, dict):
            raise ConfigError(path, f"{node!r} is not a mapping (key: value)")
        for key, value in node.items():
            _check_shape(arguments[1], value, _join(path, str(key)))
    elif origin is list:
        if not isinstance(node, list):
            raise ConfigError(path, f"{node!r} is not a list, as in [a, b]")
        for index, value in enumerate(node):
            _check_shape(arguments[0], value, f"{path}[{index}]")
    elif kind is not Any and isinstance(node, dict | list):
        raise ConfigError(path, f"{node!r} is not a single value")


def _check(value: Any, path: str) -> None:
    """Let every dataclass in `value` check itself: `check()` raises ValueError("field: what is wrong")."""
    if dataclasses.is_dataclass(value):
        try:
            getattr(value, "check", lambda: None)()
        except ValueError as error:
            name, _, reason = str(error).partition(": ")
            raise ConfigError(_join(path, name), f"{getattr(value, name)!r} is refused: {reason}") from error
        for field in dataclasses.fields(value):
            _check(getattr(value, field.name), _join(path, field.name))
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(item, _join(path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")


def _join(path: str, key: str) -> str:
    return ".".join(part for part in (path, key) if part)


def _level(schema: type, key: str) -> type | None:
    """The dataclass in which the last part of the dotted `key` was looked up."""
    level: Any = schema
    for part in key.split(".")[:-1]:
        types = {field.name: field.type for field in dataclasses.fields(level)}
        level = types.get(part)
        if not dataclasses.is_dataclass(level):
            return None
    return level


def _lookup(node: Any, key: str) -> Any:
    """The value at a dotted key such as `a.b[0]` in nested mappings; None where there is none."""
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
    return node
