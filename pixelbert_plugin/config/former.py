"""Keys of the configuration by their former names, for one release: read as today's, with one notice."""

import logging
from typing import Any

from pixelbert_plugin.registry import yaml_text
from pixelbert_plugin.registry.schema import ConfigError

logger = logging.getLogger(__name__)

FORMER = {"training.early_stop.criterion": "training.early_stop.monitor"}
_told: set[str] = set()


def renamed(values: dict[str, Any], source: str) -> dict[str, Any]:
    """The values of one file, or of the command line, under today's keys. Raises ConfigError where both names are given."""
    for former, now in FORMER.items():
        *sections, name = former.split(".")
        values = _renamed(values, sections, name, now, former, source)
    return values


def _renamed(node: Any, sections: list[str], name: str, now: str, former: str, source: str) -> Any:
    inner = yaml_text.structure(node)  # {early_stop: {…}} may be typed on the command line
    if not isinstance(inner, dict):
        return node
    if sections:
        if sections[0] not in inner:
            return node
        below = inner[sections[0]]
        found = _renamed(below, sections[1:], name, now, former, source)
        return node if found is below else inner | {sections[0]: found}
    if name not in inner:
        return node
    today = now.rpartition(".")[2]
    if today in inner:
        raise ConfigError(former, f"contradicts {now}, which is the same option; set {now} alone")
    if former not in _told and not yaml_text.is_null(inner[name]):
        _told.add(former)
        logger.warning("%s: %s is called %s now; the former name goes with the next release", source, former, now)
    return {today if key == name else key: value for key, value in inner.items()}
