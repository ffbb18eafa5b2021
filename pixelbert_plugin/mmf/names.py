"""Names in MMF's registry: ours with a prefix always, and as they are where MMF has no component of the name."""

from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.registry.schema import Kind

PREFIX = "pixelbert_"
MAPPINGS = {  # of MMF's registry, by kind
    "model": "model_name_mapping",
    "encoder": "encoder_name_mapping",
    "processor": "processor_name_mapping",
    "builder": "builder_name_mapping",
    "scheduler": "scheduler_name_mapping",
}


def registered(kind: str) -> dict[str, Any]:
    """What MMF's registry holds of a kind, by name."""
    from mmf.common.registry import registry as mmf_registry

    return mmf_registry.mapping[MAPPINGS[kind]]


def mmf_name(kind: str, name: str) -> str:
    """Our component's name in MMF: its own where that is ours there too, else with the prefix."""
    held = registered(kind)
    return name if f"{PREFIX}{name}" in held and held.get(name) is held[f"{PREFIX}{name}"] else f"{PREFIX}{name}"


def own_name(kind: Kind, name: str) -> str:
    """Our registry's name of what MMF calls `name`: without the prefix."""
    short = name.removeprefix(PREFIX)
    return short if name != short and short in registry.names(kind) else name
