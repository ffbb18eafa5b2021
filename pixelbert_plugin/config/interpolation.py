"""`${key}` in a configuration: another key's value, or what one of omegaconf's resolvers gives (`${oc.env:HOME}`)."""

import re
from typing import Any

from pixelbert_plugin.registry import yaml_text
from pixelbert_plugin.registry.scalars import shown
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.registry.yaml_text import Plain

MAX_LENGTH = 100_000  # characters of all that one value stands for: each key that is named twice by another doubles them
REFERENCE = re.compile(r"\$\{([\w.\[\]]+)\}")


def interpolated(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The tree with `${key}` and omegaconf's resolvers filled in; `defaults` are what keys that are not set stand for."""
    if not _holds(values):
        return values
    _refuse_endless(_over(defaults, values))
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        tree = OmegaConf.create(_for_omegaconf(_over(defaults, values)))
    except OmegaConfBaseException as error:  # no ${…} by its grammar
        raise ConfigError(error.full_key or "", _reason(error)) from error

    def resolve(node: Any, holder: Any, key: str | int, path: str) -> Any:
        """`node`, which `tree` has as `holder[key]`."""
        inner = _structure(node)
        if not _holds(inner):
            return node  # quoted text beside an interpolation stays quoted: "" and "null" are no null
        try:
            if isinstance(node, str) and inner is node:
                return _plain(OmegaConf.to_object(holder[key]) if OmegaConf.is_config(holder[key]) else holder[key])
            if isinstance(inner, dict):
                return {name: resolve(item, holder[key], name, f"{path}.{name}") for name, item in inner.items()}
            if isinstance(inner, list):
                return [resolve(item, holder[key], index, f"{path}[{index}]") for index, item in enumerate(inner)]
            return node
        except RecursionError as error:
            raise ConfigError(path, f"{shown(node)} is invalid: it refers to itself") from error
        except (OmegaConfBaseException, ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(path, f"{shown(node)} is invalid: {_reason(error)}") from error

    return {key: resolve(node, tree, key, key) if _holds(node) else node for key, node in values.items()}


def _refuse_endless(tree: dict[str, Any]) -> None:
    """Raises ConfigError where a value's references grow beyond all use, as omegaconf would follow them for ever."""
    lengths: dict[str, int] = {}

    def length(node: Any, path: str) -> int:
        if path not in lengths:
            lengths[path] = 0  # while it is counted: omegaconf tells of references in a circle
            inner = _structure(node)
            if isinstance(inner, dict | list):
                items = inner.items() if isinstance(inner, dict) else enumerate(inner)
                lengths[path] = sum(length(item, f"{path}.{key}" if path else str(key)) for key, item in items)
            elif isinstance(node, str):
                named = [re.sub(r"\[(\w+)\]", r".\1", name) for name in REFERENCE.findall(node)]
                lengths[path] = len(node) + sum(length(_at(tree, name), name) for name in named)
            if path and lengths[path] > MAX_LENGTH:
                raise ConfigError(path, f"{shown(node)} is invalid: it stands for more than {MAX_LENGTH:,} characters")
        return lengths[path]

    length(tree, "")


def _at(tree: Any, path: str) -> Any:
    """What lies at a key with dots; None where nothing does."""
    for name in path.split("."):
        tree = _structure(tree)
        if isinstance(tree, list):
            tree = tree[int(name)] if name.isdigit() and int(name) < len(tree) else None
        else:
            tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _reason(error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{reason}; ${{key}} is another key's value, \\${{ the characters as such"


def _structure(node: Any) -> Any:
    """A list or mapping, also a typed one; any scalar as it is."""
    found = yaml_text.structure(node)
    return found if isinstance(found, dict | list) else node


def _holds(node: Any) -> bool:
    """Whether there is an interpolation in a tree."""
    if isinstance(node, dict):
        return any(_holds(value) for value in node.values())
    if isinstance(node, list):
        return any(_holds(value) for value in node)
    return isinstance(node, str) and "${" in node


def _over(below: Any, above: Any) -> Any:
    above = _structure(above)
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: _over(below.get(key), value) for key, value in above.items()}


def _for_omegaconf(node: Any) -> Any:
    """A tree whose scalars are text, and None for null, as omegaconf can hold it."""
    node = _structure(node)
    if isinstance(node, dict):
        return {key: _for_omegaconf(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_for_omegaconf(value) for value in node]
    return yaml_text.text(node) if isinstance(node, str) else node


def _plain(node: Any) -> Any:
    """What an interpolation gave: scalars whose meaning the type of the option decides, as if they were written there."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return Plain(node) if isinstance(node, str) else node
