"""What the registry tells a component: the name it was asked for by, and where its options stand in the configuration.

A class may be registered under several names, and a subclass under one of its own; their messages must name theirs.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

ATTRIBUTE = "_registry_place"  # of a Config, and of what was built


@dataclass(frozen=True)
class Place:
    """Of a component in the configuration."""

    name: str  # as registered: "pixelbert"
    path: str  # of its options: "model_config.pixelbert", "optimizer.cnn.params"

    def key(self, option: str = "") -> str:
        """The full key of an option; without one, the key of the component."""
        return f"{self.path}.{option}" if option else self.path.removesuffix(".params")


def tell(target: Any, place: Place) -> None:
    """Let a Config, or a component, know its place; what takes no attributes does without."""
    with suppress(AttributeError, TypeError):
        object.__setattr__(target, ATTRIBUTE, place)


def place_of(target: Any) -> Place:
    """The place of a component, by its Config (in `__init__` already) or by itself (once it is built).

    Of one that was built without the registry its class is the name.
    """
    own = type(target).__name__
    return getattr(target, ATTRIBUTE, None) or Place(own.lower(), own)  # the attribute is the registry's own


def key_of(config: Any, option: str = "") -> str:
    """The full key of a Config's option, for messages: "model_config.pixelbert.max_grid_size"."""
    return place_of(config).key(option)
