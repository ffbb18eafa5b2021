"""Configuration files → one tree: YAML files with `includes:`, then `key=value`; later wins, and each value has its source.

Scalars keep their text (registry/yaml_text.py) until their option's type is known. Where a later layer names another `type`
for a component, the `params` given for the old one are left out.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelbert_plugin.config import saved
from pixelbert_plugin.config.former import renamed
from pixelbert_plugin.config.options import COMMAND_LINE, INTERVALS
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import yaml_text
from pixelbert_plugin.registry.scalars import expanded, shown
from pixelbert_plugin.registry.schema import UNTYPED, ConfigError
from pixelbert_plugin.registry.yaml_text import Typed

DEFAULT = "default"
LEFT_OUT = "left out: "  # before the key of what was set for a component of another type
PACKAGE = Path(__file__).parent.parent
SHIPPED = ("projects/", "datasets/")  # the package's folders of files that are named from any folder
MAX_INCLUDES = 50  # files within files

Layer = tuple[dict[str, Any], dict[str, str]]  # values, and by dotted key where each was set


def find(path: str) -> Path:
    """`path` from the working folder, else inside the installed package (or, in a checkout, beside it)."""
    try:
        path = expanded(path)
    except ValueError as error:
        raise UserError(f"config={path!r}: {error}") from error
    candidates = [Path(path), *_in_package(path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    there = next((candidate for candidate in candidates if path and candidate.exists()), None)
    if there is not None and (there / "config.yaml").is_file():
        raise UserError(f"config={path!r}: is a folder; did you mean config={there / 'config.yaml'}?")
    if there is not None:
        kind = "a folder" if there.is_dir() else "a pipe or device"
        raise UserError(f"config={path!r}: is {kind}; give the path of a YAML file")
    raise UserError(
        f"config={path!r}: no such file in the working folder nor in the installed package; "
        "give the path of a YAML file, for instance config=projects/pixelbert/configs/vqa2.yaml"
    )


def _in_package(path: str) -> list[Path]:
    """Where a shipped file lies: in the package, or beside it in a checkout."""
    return [PACKAGE / path, PACKAGE.parent / path]


def read(file: Path, overrides: list[str]) -> Layer:
    """Merged values and, by key, where each was set."""
    values, sources = _Files().read(file, ())
    given = renamed(command_line(overrides), COMMAND_LINE)
    merge(values, sources, given, COMMAND_LINE)
    return values, sources


def command_line(overrides: list[str]) -> dict[str, Any]:
    """The `key=value` options as one layer: the order of a component's `type` and `params` does not matter."""
    given: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.split(".")
        if not equals or not all(part.strip() for part in parts) or len(parts) > yaml_text.MAX_DEPTH:
            raise UserError(f"{shown(override)}: not understood; options are given as key=value (--help has examples)")
        node: Any = Typed(text)
        for part in reversed(parts):
            node = {part.strip(): node}
        merge(given, {}, node, COMMAND_LINE, is_one_layer=True)
    return given


def listed(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The values, where those of `keys` may also be written a,b as in MMF."""
    found = dict(values)
    for key in keys:
        if isinstance(names := yaml_text.structure(values.get(key)), str) and not yaml_text.is_null(names):
            found[key] = [name.strip() for name in names.split(",")]
    return found


def merge(
    into: dict[str, Any],
    sources: dict[str, str],
    node: dict[str, Any],
    source: str | dict[str, str],
    path: str = "",
    is_one_layer: bool = False,
) -> None:
    """Merge `node` into `into`, key by key; a list or a plain value replaces what was there."""
    if path == "training" and not is_one_layer:
        _replace_intervals(into, sources, node, source)
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        inner, below = _mapping(value), _mapping(into.get(key))
        if inner and not (isinstance(value, Typed) and below is None):
            if below is None:
                below = {}
                _forget(sources, here)
            elif not is_one_layer:
                _leave_params_of_another_type(below, inner, sources, here)
            into[key] = below
            merge(below, sources, inner, source, here, is_one_layer)
        else:
            into[key] = value
            _forget(sources, here)
            sources[here] = source if isinstance(source, str) else source.get(here, DEFAULT)


def source_of(key: str, sources: dict[str, str]) -> str:
    """Where the value at `key` was set; inside a list or mapping set as a whole, or around values, theirs."""
    key = key.partition("[")[0]
    below = next((source for name, source in sources.items() if name.startswith(f"{key}.")), DEFAULT)
    while key:
        if key in sources:
            return sources[key]
        key = key.rpartition(".")[0]
    return below


@contextmanager
def naming_sources(sources: dict[str, str]) -> Iterator[None]:
    """A ConfigError of the body names the file that set its key."""
    try:
        yield
    except ConfigError as error:
        source = source_of(error.key, sources)
        if source == DEFAULT or "(set in " in str(error):
            raise
        told = ConfigError("", f"{error} (set in {source})")
        told.key = error.key
        raise told from error


class _Files:
    """Files with their includes, each read once however often it is included."""

    def __init__(self) -> None:
        self.layers: dict[Path, Layer] = {}

    def read(self, file: Path, chain: tuple[Path, ...]) -> Layer:
        """The merged values of a file and its includes (relative to it; later wins, the file itself last)."""
        resolved = file.resolve()
        if resolved in chain:
            raise UserError(f"{file}: includes itself, through {' → '.join(str(path) for path in chain)}")
        if len(chain) > MAX_INCLUDES:
            raise UserError(f"{file}: includes are nested deeper than {MAX_INCLUDES} files")
        if resolved not in self.layers:
            self.layers[resolved] = self._read(file, (*chain, resolved))
        return self.layers[resolved]

    def _read(self, file: Path, chain: tuple[Path, ...]) -> Layer:
        node = yaml_text.read(file)
        if not isinstance(node, dict):
            raise UserError(f"{file}: holds no mapping (key: value) at its top level")
        saved.settle(node, file)
        node = renamed(node, _shown(file))
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        includes = node.pop("includes", [])
        includes = [] if yaml_text.is_null(includes) else includes
        if not isinstance(includes, list) or not all(_is_path(include) for include in includes):
            raise UserError(f"{file}: includes {shown(includes)}: must be a list of paths, as in includes: [base.yaml]")
        for include in includes:
            inner, inner_sources = self.read(_included(file, include), chain)
            merge(values, sources, inner, inner_sources)
            sources |= {key: source for key, source in inner_sources.items() if key.startswith(LEFT_OUT)}
        env = node.get("env")
        folder = yaml_text.text(env["user_dir"]) if isinstance(env, dict) and isinstance(env.get("user_dir"), str) else ""
        if isinstance(env, dict) and folder and not folder.startswith("~") and "${" not in folder and "\0" not in folder:
            env["user_dir"] = os.path.realpath(_beside(file, folder) or file.parent / folder)
        merge(values, sources, node, _shown(file))
        return values, sources


def _included(file: Path, include: str) -> Path:
    try:
        name = expanded(str(include))
        path = _beside(file, name)
    except ValueError as error:
        raise UserError(f"{file}: includes {shown(include)}: {error}") from error
    if path is None:
        raise UserError(
            f"{file}: includes {include!r}: no such file {file.parent / name}; paths are relative to the including file, "
            "or those of shipped files, such as projects/pixelbert/configs/vqa2.yaml"
        )
    return path


def _beside(file: Path, name: str) -> Path | None:
    """The path that `file` names: relative to it, else of what the package ships. None where there is neither."""
    shipped = _in_package(name) if name.startswith(SHIPPED) else []
    return next((path for path in (file.parent / name, *shipped) if path.exists()), None)


def _leave_params_of_another_type(below: dict[str, Any], above: dict[str, Any], sources: dict[str, str], path: str) -> None:
    """Where a component's node gets another `type`, take away the `params` of the old one; `sources` remembers them.

    Params that came before any type are for the default type, which only the schema knows: they are kept aside.
    """
    keys = {"type", "params", UNTYPED}
    if "type" not in above or set(above) - keys or set(below) - keys:
        return
    if "type" not in below:
        if "params" in below:
            below[UNTYPED] = below.pop("params")
            _rename(sources, f"{path}.params", f"{path}.{UNTYPED}")
    elif _word(below["type"]) != _word(above["type"]):
        for name in ("params", UNTYPED):
            below.pop(name, None)
            _rename(sources, f"{path}.{name}", f"{LEFT_OUT}{path}.params")


def _replace_intervals(
    into: dict[str, Any], sources: dict[str, str], node: dict[str, Any], source: str | dict[str, str]
) -> None:
    """An interval that `node` sets in updates replaces one that was set in epochs, and the other way round."""
    for pair in INTERVALS:
        if source == COMMAND_LINE and not any(yaml_text.is_null(node.get(name)) for name in pair):
            raise ConfigError(f"training.{pair[1]}", f"contradicts training.{pair[0]}={node[pair[0]]}; set one of the two")
        for name, other in (pair, pair[::-1]):
            if name in node and other not in node and other in into:
                del into[other]
                _forget(sources, f"training.{other}")


def settle(sources: dict[str, str], path: str, is_kept: bool) -> None:
    """Once the schema has told whether params that came before a type are of the type chosen: their sources follow."""
    _rename(sources, f"{path}.{UNTYPED}", f"{path}.params" if is_kept else f"{LEFT_OUT}{path}.params")


def _rename(sources: dict[str, str], old: str, new: str) -> None:
    for key in [key for key in sources if key == old or key.startswith(f"{old}.")]:
        sources.setdefault(f"{new}{key.removeprefix(old)}", sources.pop(key))


def _mapping(value: Any) -> dict[str, Any] | None:
    """A value that is a mapping, also one that was typed as {a: 1}."""
    found = yaml_text.structure(value) if isinstance(value, Typed) else value
    return found if isinstance(found, dict) else None


def _word(node: Any) -> Any:
    return yaml_text.text(node) if isinstance(node, str) else node


def _is_path(node: Any) -> bool:
    try:
        return isinstance(yaml_text.value(node), str)
    except ValueError:
        return False


def _forget(sources: dict[str, str], key: str) -> None:
    """Drop the sources of a value that another one replaces."""
    for name in [name for name in sources if name == key or name.startswith(f"{key}.")]:
        del sources[name]


def _shown(file: Path) -> str:
    """A shipped file by its path in the package, any other as it was named."""
    for root in (PACKAGE, PACKAGE.parent):
        if file.resolve().is_relative_to(root):
            return str(file.resolve().relative_to(root))
    return str(file)
