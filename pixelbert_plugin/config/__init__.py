"""Configuration: YAML files with `includes:` and `key=value` → one typed RunConfig, whose values remember their origin."""

from pixelbert_plugin.config.files import find, naming_sources, read, source_of
from pixelbert_plugin.config.loading import (
    complete,
    configure,
    dump,
    leaves,
    left_out,
    load,
    read_values,
    resolve,
    to_annotated_yaml,
    to_yaml,
    typed,
)

__all__ = [
    "complete",
    "configure",
    "dump",
    "find",
    "leaves",
    "left_out",
    "load",
    "naming_sources",
    "read",
    "read_values",
    "resolve",
    "source_of",
    "to_annotated_yaml",
    "to_yaml",
    "typed",
]
