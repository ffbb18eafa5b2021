"""Which options of a configuration are not their defaults: what tells one run from another."""

import dataclasses
from typing import Any

from pixelbert_plugin.config.loading import leaves
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.registry.schema import Component, default_of

LAST = "env."  # where files lie says least


def changed(config: RunConfig) -> tuple[str, ...]:
    """The dotted keys, those given on the command line first, those of `env` last. `config` is complete."""
    found: list[str] = []

    def look(node: Any, key: str, default: Any) -> None:
        if isinstance(node, Component):
            if not isinstance(default, Component) or node.type != default.type:
                found.append(f"{key}.type")
            look(node.params, f"{key}.params", None)
        elif dataclasses.is_dataclass(node):
            for field in dataclasses.fields(node):
                look(getattr(node, field.name), f"{key}.{field.name}".lstrip("."), default_of(field))
        elif isinstance(node, dict) and node:
            for name, value in node.items():
                look(value, f"{key}.{name}", default.get(name, _NONE) if isinstance(default, dict) else _NONE)
        elif node != default:
            found.append(key)

    look(config, "", None)
    known = leaves(config)
    order = [key for key in found if key in known]
    return tuple(sorted(order, key=lambda key: (not config.is_asked_now(key), key.startswith(LAST))))


_NONE = object()  # equal to nothing
