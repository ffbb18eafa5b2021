"""MMF's configuration nodes as plain values."""

from typing import Any

from omegaconf import OmegaConf


def plain(node: Any) -> dict[str, Any]:
    """A mapping, an OmegaConf node, a dataclass or None as nested mappings and lists."""
    found: Any = OmegaConf.to_container(OmegaConf.create({} if node is None else node), resolve=True)
    return found  # as its root is a mapping
