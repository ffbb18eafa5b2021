"""Configuration: YAML files with `includes:`, then `key=value`, merged into one typed `RunConfig`.

Every value remembers the file it came from (`RunConfig.sources`), for errors and for `--print-config`. Components'
options (`model_config.<name>`, `dataset_config.<name>`, …) are checked by the registry once plugins are loaded:
`complete`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pixelbert_plugin import registry, schema
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.options import INTERVALS, RunConfig
from pixelbert_plugin.schema import ConfigError

COMMAND_LINE = "command line"
DEFAULT = "default"
PACKAGE = Path(__file__).parent


def find(path: str) -> Path:
    """`path` from the working folder, else inside the installed package (or, in a checkout, beside it)."""
    candidates = [Path(path), PACKAGE / path, PACKAGE.parent / path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"config={path!r}: no such file in the working folder nor in the installed package; "
        "give the path of a YAML file, for instance config=projects/pixelbert/configs/vqa2.yaml"
    )


def load(path: str, overrides: list[str] | None = None) -> RunConfig:
    """Read `path` with its includes, apply the `key=value` overrides and check all but the components' options."""
    file = find(path)
    return typed(file, *read(file, overrides or []))


def typed(file: Path, values: dict[str, Any], sources: dict[str, str]) -> RunConfig:
    """The merged values of `file` as a configuration, checked all but for the components' options."""
    if isinstance(values.get("datasets"), str):  # MMF's datasets=a,b
        values["datasets"] = [name.strip() for name in values["datasets"].split(",")]
    try:
        config = schema.merge(RunConfig, values)
    except ConfigError as error:
        raise with_source(error, sources) from error
    if not config.env.save_dir:
        config.env.save_dir = str(Path("save") / file.stem)
    config.sources = sources
    return config


def read_values(file: Path, overrides: list[str]) -> dict[str, Any]:
    """The merged values of any YAML file with includes, with `key=value` overrides; nothing is checked."""
    return read(file, overrides)[0]


def read(file: Path, overrides: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Merged values and, by key, where each was set."""
    values, sources = _read(file, ())
    for override in overrides:
        _merge(values, sources, _parse_override(override), COMMAND_LINE, "")
    return values, sources


def complete(config: RunConfig) -> RunConfig:
    """Check every component's options and fill in their defaults. Plugins must be loaded before."""
    try:
        precisions = [name for name in [config.training.precision] if name != "auto"]
        for kind, chosen, key, section in (
            ("model", [config.model], "model", "model_config"),
            ("task", [config.task], "task", "task_config"),
            ("builder", config.datasets, "datasets", "dataset_config"),
            ("precision", precisions, "training.precision", "precision_config"),
        ):
            sections = getattr(config, section)
            for name in chosen:
                registry.get(kind, name, key)
            for name in [*chosen, *(name for name in sections if name not in chosen)]:
                options = registry.configure(kind, name, sections.get(name), f"{section}.{name}")
                sections[name] = registry.as_dict(options)
        for kind, references, path in (
            ("processor", vars(config.processors), "processors."),
            ("optimizer", config.optimizer, "optimizer."),
            ("scheduler", {"scheduler": config.scheduler}, ""),
        ):
            for name, reference in references.items():
                options = registry.configure(kind, reference.type, reference.params, f"{path}{name}.params")
                reference.params = registry.as_dict(options)
    except ConfigError as error:
        raise with_source(error, config.sources) from error
    return config


def dump(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain mappings, as config.yaml holds it."""
    return dataclasses.asdict(config)


def to_yaml(config: RunConfig) -> str:
    return yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True)


def leaves(config: RunConfig) -> dict[str, Any]:
    """The resolved values by dotted key."""
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            found[path] = node

    walk(dump(config), "")
    return found


def to_annotated_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML, each value with a comment that names the file it came from."""
    lines = []

    def walk(node: dict[str, Any], path: str, indent: str) -> None:
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            if isinstance(value, dict) and value:
                lines.append((f"{indent}{key}:", ""))
                walk(value, here, indent + "  ")
            else:
                shown = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
                shown = shown.removesuffix("...\n").strip()
                lines.append((f"{indent}{key}: {shown}", f"# {source_of(here, config.sources)}"))

    walk(dump(config), "", "")
    width = min(72, max(len(text) for text, comment in lines if comment))
    return "\n".join(f"{text:<{width}}  {comment}".rstrip() for text, comment in lines)


def source_of(key: str, sources: dict[str, str]) -> str:
    """Where the value at `key` was set; inside a list or mapping set as a whole, or around values, theirs."""
    key = key.partition("[")[0]
    below = next((source for name, source in sources.items() if name.startswith(f"{key}.")), DEFAULT)
    while key:
        if key in sources:
            return sources[key]
        key = key.rpartition(".")[0]
    return below


def _read(file: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged values of a file and its includes (relative to it; later wins, the file itself last)."""
    if file.resolve() in chain:
        raise UserError(f"{file}: includes itself, through {' → '.join(str(path) for path in chain)}")
    try:
        node = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{file}: {line}not valid YAML: {getattr(error, 'problem', error)}") from error
    except (OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(node, dict):
        raise UserError(f"{file}: holds no mapping (key: value) at its top level")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    includes = node.pop("includes", None) or []
    if not isinstance(includes, list) or not all(isinstance(include, str) for include in includes):
        raise UserError(f"{file}: includes {includes!r}: must be a list of paths, as in includes: [base.yaml]")
    for include in includes:
        included = file.parent / include
        if not included.is_file():
            raise UserError(f"{file}: includes {include!r}: no such file {included}; paths are relative to the including file")
        inner, inner_sources = _read(included, (*chain, file.resolve()))
        for key, value in inner.items():
            _merge(values, sources, {key: value}, inner_sources, "")
    env = node.get("env")
    if isinstance(env, dict) and isinstance(env.get("user_dir"), str) and env["user_dir"]:
        env["user_dir"] = str((file.parent / env["user_dir"]).resolve())
    _merge(values, sources, node, _shown(file), "")
    return values, sources


def _shown(file: Path) -> str:
    """A shipped file by its path in the package, any other as it was named."""
    for root in (PACKAGE, PACKAGE.parent):
        if file.resolve().is_relative_to(root):
            return str(file.resolve().relative_to(root))
    return str(file)


def _merge(into: dict, sources: dict[str, str], node: dict, source: str | dict[str, str], path: str) -> None:
    """Merge `node` into `into`, key by key; a list or a plain value replaces what was there."""
    if path == "training":
        _replace_intervals(into, sources, node, source)
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            if not isinstance(into.get(key), dict):
                into[key] = {}
                _forget(sources, here)
            _merge(into[key], sources, value, source, here)
        else:
            into[key] = value
            _forget(sources, here)
            sources[here] = source if isinstance(source, str) else source.get(here, DEFAULT)


def _replace_intervals(into: dict, sources: dict[str, str], node: dict, source: str | dict[str, str]) -> None:
    """An interval that `node` sets in updates replaces one that was set in epochs, and the other way round."""
    for pair in INTERVALS:
        for name, other in (pair, pair[::-1]):
            if name in node and other not in node and other in into:
                if source == COMMAND_LINE == sources.get(f"training.{other}"):
                    raise ConfigError(f"training.{name}", f"contradicts training.{other}={into[other]}; set one of the two")
                del into[other]
                _forget(sources, f"training.{other}")


def _forget(sources: dict[str, str], key: str) -> None:
    """Drop the sources of a value that another one replaces."""
    for name in [name for name in sources if name == key or name.startswith(f"{key}.")]:
        del sources[name]


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r}: not understood; options are given as key=value, for instance training.batch_size=64")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([text]), resolve=False)
    except Exception as error:
        raise UserError(f"{text!r}: not understood ({str(error).splitlines()[0]}); quote YAML in values") from error


def with_source(error: ConfigError, sources: dict[str, str]) -> UserError:
    """The error with the file that set its key."""
    source = source_of(error.key, sources)
    return error if source == DEFAULT else UserError(f"{error} (set in {source})")
