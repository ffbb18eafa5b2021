"""The registry: names → components, by kind. MMF's vocabulary on top of catalogue's namespaces and entry points.

    @registry.register_model("my_model")
    class MyModel(nn.Module):
        @dataclass(kw_only=True)
        class Config:
            depth: int = 12  # layers

        def __init__(self, config: Config, ...): ...

A component's options are the dataclass `Config` on it; `build` merges a YAML node into it. Another distribution adds
components by entry points of the groups `pixelbert_plugin_models`, `pixelbert_plugin_encoders`, …. Those of this
package are known by their source, and imported when one is asked for (built_in.py).
"""

import dataclasses
import inspect
import logging
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeVar, get_args

import catalogue

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import built_in, contracts, schema
from pixelbert_plugin.registry.built_in import PACKAGE, BuiltIn
from pixelbert_plugin.registry.place import Place, place_of, tell
from pixelbert_plugin.registry.schema import Component, ConfigError, Kind
from pixelbert_plugin.registry.yaml_text import is_null, structure

KINDS: tuple[Kind, ...] = get_args(Kind)
T = TypeVar("T")
logger = logging.getLogger(__name__)

_namespaces = {kind: catalogue.create("pixelbert_plugin", f"{kind}s", entry_points=True) for kind in KINDS}


def _decorator(kind: Kind) -> Callable[[str], Callable[[T], T]]:
    def register(name: str = "") -> Callable[[T], T]:
        if not isinstance(name, str) or not name:
            of = f" above {location(name)}" if isinstance(name, type) or callable(name) else f", not {name!r}"
            raise UserError(
                f'register_{kind} takes the name of the {kind}{of if name else ""}: @registry.register_{kind}("NAME")'
            )

        def decorate(component: T) -> T:
            config = contracts.config_of(component)
            if config is not None and not (isinstance(config, type) and dataclasses.is_dataclass(config)):
                raise UserError(f"{kind} {name!r} of {location(component)}: its Config is not a dataclass")
            taken = _taken(kind, name, component)
            if taken is not None and taken is not component and not _is_same_source(taken, component):
                raise _duplicate(kind, name, location(taken), location(component))
            if not callable(component):
                frame, what = sys._getframe(1), type(component).__name__
                where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise _incomplete(kind, name, where, [f"it is no class or function, but a value of type {what}"])
            _accept(kind, name, component)
            _namespaces[kind].register(name, func=component)
            return component

        return decorate

    register.__name__ = f"register_{kind}"
    register.__doc__ = f"Class or function decorator: makes it the {kind} of this name. Raises UserError if taken."
    return register


register_model = _decorator("model")
register_encoder = _decorator("encoder")
register_processor = _decorator("processor")
register_builder = _decorator("builder")
register_task = _decorator("task")
register_metric = _decorator("metric")
register_optimizer = _decorator("optimizer")
register_scheduler = _decorator("scheduler")
register_precision = _decorator("precision")
register_checkpoint_reader = _decorator("checkpoint_reader")
register_tracker = _decorator("tracker")
register_explanation = _decorator("explanation")


def get(kind: Kind, name: str, path: str = "") -> Any:
    """The component `name`; `path` is the config key that named it, for the error."""
    entry_points = [point for point in _entry_points(kind) if point.name == name]
    registered = _registered(kind)
    if len(entry_points) > 1:
        raise _duplicate(kind, name, *map(_distribution, entry_points[:2]))
    if entry_points:
        try:
            component = entry_points[0].load()
        except Exception as error:
            raise UserError(
                f"{kind} {name!r}: {_distribution(entry_points[0])} cannot be imported "
                f"({type(error).__name__}: {error}); repair or uninstall that distribution"
            ) from error
        # read again: importing the entry point may have run a decorator of the same name
        taken = _taken(kind, name, component)
        if taken is not None and taken is not component:
            raise _duplicate(kind, name, location(taken), _distribution(entry_points[0]))
        _accept(kind, name, component)
        return component
    if name in registered:
        return registered[name]
    own = _built_in(kind, name)
    if own is None:
        hint = schema.nearest(str(name), names(kind))
        message = f"no {kind} is registered as {name!r}{hint}. A plugin is loaded by env.user_dir=FOLDER or plugins=[MODULE]"
        raise schema.UnknownComponentError(path, message, kind, name)
    return own.load()


def names(kind: Kind) -> list[str]:
    """All registered names of a kind, entry points included (they are not imported)."""
    own = {name for of_kind, name in built_in.components() if of_kind == kind}
    return sorted({*own, *_registered(kind), *(point.name for point in _entry_points(kind))})


def options_of(kind: Kind, name: str, path: str = "") -> type | None:
    """The dataclass of the component's options; None where it takes none. Raises as `get`."""
    own = _not_imported(kind, name)
    if own is not None:
        return own.config()
    return contracts.config_of(get(kind, name, path))


def configure(kind: Kind, name: str, node: Any, path: str) -> Any:
    """The component's `Config` with the mapping `node` merged in, those of nested components too; None where it takes no
    options. A `node` that is its Config already is left as it is.

    Raises ConfigError with the full path of an unknown or ill-typed key.
    """
    options = options_of(kind, name, _type_key(path))
    if options is None:
        given = structure(node)
        if given and not is_null(node):
            key = f"{path}.{next(iter(given))}" if isinstance(given, dict) else path
            raise ConfigError(key, f"unknown key: the {kind} {name!r} takes no options")
        return None
    if isinstance(node, options):
        return node
    config: Any = schema.merge(options, node, path)
    tell(config, Place(name, path))
    for field in dataclasses.fields(config):
        inner_kind, inner = field.metadata.get("kind"), getattr(config, field.name)
        if inner_kind is not None:
            inner_path = f"{path}.{field.name}.params"
            inner.params = configure(inner_kind, inner.type, inner.params, inner_path) or {}
    return config


def build(kind: Kind, name: str, node: Any = None, path: str = "", use: str = "", **context: Any) -> Any:
    """Build the component: its class called with its `Config` (`node`, or read from that mapping; if it has one) and the
    keyword arguments `context`. Both know their place: `key_of(config, option)`, `place_of(component)`.

    `use`: as what it is wanted, where components of the kind are of several sorts ("processor of text"). Raises UserError
    where it lacks something of its contract.
    """
    component = get(kind, name, _type_key(path))
    config: Any = configure(kind, name, node, path or f"{kind}.{name}")
    try:
        built = component(**context) if config is None else component(config, **context)
    except (ValueError, TypeError) as error:  # values that only the component can judge, or another kind's component
        field, _, reason = str(error).partition(": ")
        if config is not None and field in {item.name for item in dataclasses.fields(config)}:
            raise ConfigError(f"{path}.{field}", reason) from error
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(path, f"the {kind} {name!r} cannot be built ({reason}); --debug shows where") from error
    own = contracts.use_of(kind, built)
    wanted = contracts.use_named(kind, use) if use else own
    if found := contracts.problems(wanted.contract, built, is_built=True):
        if own is not wanted:
            raise ConfigError(_type_key(path), f"{name!r} is no {use} ({'; '.join(found)})")
        raise _incomplete(kind, name, location(component), found)
    if found := contracts.unlearned(wanted, built):
        raise _incomplete(kind, name, location(component), found)
    contracts.complete(built, wanted.contract)
    tell(built, Place(name, path))
    return built


def require(kind: Kind, built: Any, contract: type, purpose: str) -> None:
    """Raise UserError, naming all that is missing, where a component that was built lacks what a `purpose` needs of it; give it
    what it may leave out."""
    if found := contracts.problems(contract, built, is_built=True):
        raise _incomplete(kind, place_of(built).name, location(type(built)), found, purpose)
    contracts.complete(built, contract)


def build_component(kind: Kind, reference: Component, path: str = "", use: str = "", **context: Any) -> Any:
    """Build what a `{type, params}` node of the config names."""
    return build(kind, reference.type, reference.params, path, use, **context)


def origin(kind: Kind, name: str) -> str:
    """ "built-in", "entry point of <distribution>" or "user plugin <file>"."""
    points = [point for point in _entry_points(kind) if point.name == name]
    if points:
        return _distribution(points[0])
    if _not_imported(kind, name) is not None:
        return "built-in"
    component = _registered(kind)[name]
    return "built-in" if _is_built_in(component) else f"user plugin {location(component)}"


def location(component: Any) -> str:
    """ "file:line" of a class or function, relative to the package for built-ins."""
    try:
        file, line = inspect.getfile(component), inspect.getsourcelines(component)[1]
    except (TypeError, OSError):
        return f"{component.__module__}.{getattr(component, '__qualname__', component)}"
    path = Path(file)
    shown = path.relative_to(PACKAGE.parent) if _is_built_in(component) else path
    return f"{shown}:{line}"


def _is_same_source(one: Any, other: Any) -> bool:
    """Whether it is one class or function whose file was imported twice: as env.user_dir, and by a module that imports it."""
    try:
        places = [(inspect.getfile(each), inspect.getsourcelines(each)[1], each.__qualname__) for each in (one, other)]
    except (TypeError, OSError, AttributeError):
        return False
    return places[0] == places[1]


def documentation(kind: Kind, name: str) -> str:
    """A component's docstring."""
    own = _not_imported(kind, name)
    return own.documentation if own is not None else inspect.getdoc(get(kind, name)) or ""


def description(kind: Kind, name: str) -> str:
    """The first line of a component's docstring."""
    return documentation(kind, name).strip().split("\n")[0]


def source(kind: Kind, name: str) -> str:
    """Where a component is written: "file:line"."""
    own = _not_imported(kind, name)
    return own.location if own is not None else location(get(kind, name))


def _is_built_in(component: Any) -> bool:
    return str(component.__module__).startswith(f"{PACKAGE.name}.")


def _registered(kind: Kind) -> dict[str, Any]:
    """What decorators have registered: catalogue's own table, since its `get` lets entry points shadow it silently."""
    prefix = ("pixelbert_plugin", f"{kind}s")
    return {key[-1]: value for key, value in catalogue.REGISTRY.items() if key[:-1] == prefix}


def _built_in(kind: Kind, name: str) -> BuiltIn | None:
    return built_in.components().get((kind, name))


def _not_imported(kind: Kind, name: str) -> BuiltIn | None:
    """The component of this package that the name means, while it is known by its source alone."""
    is_other = name in _registered(kind) or any(point.name == name for point in _entry_points(kind))
    return None if is_other else _built_in(kind, name)


def _taken(kind: Kind, name: str, component: Any) -> Any:
    """What has the name that `component` is to have: registered, or of this package's modules, imported or not."""
    registered, own = _registered(kind).get(name), _built_in(kind, name)
    if registered is None and own is not None and own.module != getattr(component, "__module__", None):
        return own.load()
    return registered


def _entry_points(kind: Kind) -> list[EntryPoint]:
    """Entry points of a kind, one per distinct target (a distribution can be found twice on sys.path)."""
    group = _namespaces[kind].entry_point_namespace
    found = catalogue.AVAILABLE_ENTRY_POINTS.select(group=group)
    return list({(point.name, point.value): point for point in found}.values())


def _distribution(point: EntryPoint) -> str:
    dist = point.dist
    return f"entry point of {dist.name} {dist.version} ({point.value})" if dist else f"entry point {point.value}"


def _accept(kind: Kind, name: str, component: Any) -> None:
    """Raise UserError where a component lacks what it must have, as far as can be seen before it is built; fill in the rest."""
    if kind == "scheduler" and contracts.takes_no_progress(component):
        contracts.ignore_progress(component)
        logger.warning(
            "scheduler %r (%s): is called with (update, epoch, progress) now, progress from 0 to 1; one that takes "
            "(update, epoch) works in this release still",
            *(name, location(component)),
        )
    if found := contracts.of_registered(kind, component):
        raise _incomplete(kind, name, location(component), found)
    if isinstance(component, type) or kind == "task":  # which is asked what it needs before it is built
        contracts.complete(component, contracts.use_of(kind, component).contract)


def _incomplete(kind: Kind, name: str, where: str, found: list[str], purpose: str = "") -> UserError:
    wanted = f"{purpose} needs" if purpose else f"every {kind} must have"
    return UserError(f"{kind} {name!r} ({where}): {'; '.join(found)}. docs/extending.md lists what {wanted}")


def _duplicate(kind: Kind, name: str, first: str, second: str) -> UserError:
    return UserError(f"{kind} {name!r} is registered twice: by {first} and by {second}; rename one of them")


def _type_key(path: str) -> str:
    """The key that holds a component's name, given the path of its options."""
    return f"{path.removesuffix('.params')}.type" if path.endswith(".params") else path
