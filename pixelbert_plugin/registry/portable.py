"""Options without the files that they name: what a checkpoint keeps, so that it alone is enough to build its parts again."""

import dataclasses
from typing import Any

from pixelbert_plugin.registry.schema import Component


def portable_options(component: Any, options: Any) -> dict[str, Any]:
    """The options that build `component`, made with `options`, from a checkpoint; as plain values (interfaces.Portable)."""
    found = component.portable() or options or {}
    return dict(found) if isinstance(found, dict) else dataclasses.asdict(found)


def portable_component(component: Any, reference: Component) -> Component:
    """The node of a component that another one holds, such as a model's encoder."""
    return Component(reference.type, portable_options(component, reference.params))
