"""Configuration: YAML files with `includes:`, then `key=value`, merged into one typed `RunConfig`.

Every value remembers the file it came from (`RunConfig.sources`), for errors and for `--print-config`. Components'
options (`model_config.<name>`, `dataset_config.<name>`, …) are checked by the registry once plugins are loaded:
`configure`.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.config import files as config_files
from pixelbert_plugin.config import saved
from pixelbert_plugin.config.files import LEFT_OUT, find, naming_sources, read, settle, source_of
from pixelbert_plugin.config.interpolation import interpolated
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import plugins, schema, yaml_text
from pixelbert_plugin.registry.scalars import Expanded
from pixelbert_plugin.registry.schema import Component, ConfigError, Kind


def resolve(source: RunConfig | str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A configuration ready to run: its plugins loaded, every component's options checked and their defaults filled in.

    `source`: the path of a YAML file, with `key=value` overrides; or a RunConfig, from a file or made in Python.
    Raises UserError (ConfigError, with the key) in one line.
    """
    if isinstance(source, RunConfig):
        if overrides:
            raise UserError(f"overrides {list(overrides)} are for a configuration file; set them on the RunConfig")
        config = source
        _read_again(config)
    else:
        config = load(str(source), list(overrides))
    plugins.load(config.env.user_dir, config.plugins)
    return configure(config)


def load(path: str, overrides: list[str] | None = None) -> RunConfig:
    """Read `path` with its includes, apply the `key=value` overrides and check all but the components' options."""
    file = find(path)
    return typed(file, *read(file, overrides or []))


def typed(file: Path, values: dict[str, Any], sources: dict[str, str]) -> RunConfig:
    """The merged values of `file` as a configuration, checked all but for the components' options."""
    with naming_sources(sources), _suggesting(lambda: _known_keys(file, values)):
        config = _merged(values)
    if not config.env.save_dir:
        config.env.save_dir = str(Path("save") / file.stem)
    config.sources, config.saved_run = sources, saved.run_folder(file)
    return config


def read_values(file: Path, overrides: list[str]) -> dict[str, Any]:
    """The merged values of any YAML file with includes, with `key=value` overrides; nothing is checked."""
    return read(file, overrides)[0]


def complete(config: RunConfig) -> RunConfig:
    """As `configure`, of a RunConfig that may be made, or have been changed, in Python: it is read as a file's values are."""
    _read_again(config)
    return configure(config)


def configure(config: RunConfig, only: Collection[str] | None = None) -> RunConfig:
    """Make of every component's options its Config, in place: checked, with the defaults. Plugins must be loaded before.

    `only`: the keys of those that are wanted (`task_config.vqa`, `processors.text.params`), where others may be unknown.
    """
    with naming_sources(config.sources), _suggesting(lambda: leaves(config)):
        precisions = [name for name in [config.training.precision] if name != "auto"]
        sections_of: tuple[tuple[Kind, list[str], str, str], ...] = (
            ("model", [config.model], "model", "model_config"),
            ("task", [config.task], "task", "task_config"),
            ("builder", config.datasets, "datasets", "dataset_config"),
            ("precision", precisions, "training.precision", "precision_config"),
            ("tracker", config.trackers, "trackers", "tracker_config"),
        )
        for kind, chosen, key, section in sections_of:
            sections = getattr(config, section)
            names = [name for name in dict.fromkeys([*chosen, *sections]) if only is None or f"{section}.{name}" in only]
            for name in names:
                if name in chosen:
                    registry.options_of(kind, name, key)
            for name in names:
                options = registry.configure(kind, name, sections.get(name), f"{section}.{name}")
                _settle(config, options, f"{section}.{name}.")
                sections[name] = options or {}
        _settle(config, config.processors, "processors.")
        _settle(config, config, "")
        components: tuple[tuple[Kind, dict[str, Component], str], ...] = (
            ("processor", vars(config.processors), "processors."),
            ("optimizer", config.optimizer, "optimizer."),
            ("scheduler", {"scheduler": config.scheduler}, ""),
        )
        for kind, references, path in components:
            for name, reference in references.items():
                place = f"{path}{name}.params"
                if only is not None and place not in only:
                    continue
                settle(config.sources, f"{path}{name}", is_kept=True)  # what has no default type took them
                options = registry.configure(kind, reference.type, reference.params, place)
                _settle(config, options, f"{place}.")
                reference.params = options or {}
    return config


def _read_again(config: RunConfig) -> None:
    """Read the values of a RunConfig as those of a file, in place: types are checked, ~ is the home folder."""
    with naming_sources(config.sources), _suggesting(lambda: leaves(config)):
        read = schema.merge(RunConfig, dataclasses.asdict(config))
    for field in dataclasses.fields(config):
        setattr(config, field.name, getattr(read, field.name))


def _merged(values: dict[str, Any]) -> RunConfig:
    values = interpolated(values, dataclasses.asdict(RunConfig()))
    return schema.merge(RunConfig, config_files.listed(values, "datasets", "trackers", "plugins"))


def _known_keys(file: Path, values: dict[str, Any]) -> list[str]:
    """As written; where the file by itself is right, those of all its components too, most of which keep their defaults."""
    found = [*leaves(RunConfig()), *leaves_of(yaml_text.unfolded(values))]
    with contextlib.suppress(UserError):
        config = _merged(read(file, [])[0])
        plugins.load(config.env.user_dir, config.plugins)
        found += leaves(complete(config))
    return found


@contextmanager
def _suggesting(known: Callable[[], Iterable[str]]) -> Iterator[None]:
    """For an unknown key, a ConfigError of the body tells which known keys have its name: batch_size is training.batch_size."""
    try:
        yield
    except ConfigError as error:
        section, _, name = error.key.rpartition(".")
        is_option = section.endswith("_config") and "is registered as" in str(error)  # where a component's name is due
        places = sorted({key for key in known() if key.rpartition(".")[2] == name and key != error.key})
        if not places or not (is_option or "unknown key" in str(error)):
            raise
        raise ConfigError(error.key, f"unknown key; did you mean {' or '.join(places[:3])}?") from error


def _settle(config: RunConfig, options: Any, path: str) -> None:
    """Tell the sources which components of `options`, whose keys start with `path`, are still of their default type."""
    for field in dataclasses.fields(options) if options is not None else ():
        if field.metadata.get("kind") is not None:
            settle(config.sources, path + field.name, getattr(options, field.name).type == schema.default_of(field).type)


def dump(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain mappings, as config.yaml holds it: a path with ~ as it was typed."""
    return {key: _typed(value) for key, value in dataclasses.asdict(config).items()}


def _typed(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _typed(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(map(_typed, node))
    return node.typed if isinstance(node, Expanded) else node


def to_yaml(config: RunConfig, folder: Path) -> str:
    """The configuration as it is saved in `folder`: what the run is, without what was asked once."""
    values = dump(config)
    saved.take_once(values)
    saved.portable(values, folder)
    return yaml_text.dump(values)


def leaves(config: RunConfig) -> dict[str, Any]:
    """The resolved values by dotted key."""
    return leaves_of(dump(config))


def leaves_of(values: dict[str, Any]) -> dict[str, Any]:
    """The values of nested mappings by dotted key."""
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            found[path] = node

    walk(values, "")
    return found


def to_annotated_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML, each value with a comment that names the file it came from."""
    lines = []

    def walk(node: dict[str, Any], path: str, indent: str) -> None:
        for key, value in node.items():
            here, name = f"{path}.{key}" if path else str(key), yaml_text.dump(key, is_flow=True)
            if isinstance(value, dict) and value:
                lines.append((f"{indent}{name}:", ""))
                walk(value, here, indent + "  ")
            else:
                shown = yaml_text.dump(value, is_flow=True)
                lines.append((f"{indent}{name}: {shown}", f"# {_printable(source_of(here, config.sources))}"))

    walk(dump(config), "", "")
    width = min(72, max(len(text) for text, comment in lines if comment))
    dropped = [
        f"# left out, as its component has another type: {_printable(f'{key} ({source})')}" for key, source in left_out(config)
    ]
    return "\n".join([*dropped, *(f"{text:<{width}}  {comment}".rstrip() for text, comment in lines)])


def left_out(config: RunConfig) -> list[tuple[str, str]]:
    """The components' options that were set, but for another `type` than the one chosen; with their sources."""
    found = [(key.removeprefix(LEFT_OUT), source) for key, source in config.sources.items() if key.startswith(LEFT_OUT)]
    return sorted(found)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
