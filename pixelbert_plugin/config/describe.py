"""What `--list` and `--describe` print: components with their origins, options with defaults and comments."""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.config import files as config_files
from pixelbert_plugin.config.options import EnvConfig, RunConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import contracts, yaml_text
from pixelbert_plugin.registry.schema import Component, default_of, merge, nearest


def components() -> str:
    """Every registered component by kind, with its origin and first line of documentation."""
    lines = []
    for kind in registry.KINDS:
        lines.append(f"{kind}s")
        for name in registry.names(kind):
            try:
                text = registry.description(kind, name)
            except UserError as error:  # a broken plugin must not hide the others
                text = f"cannot be loaded: {error}"
            lines.append(f"  {name:<18} [{registry.origin(kind, name)}] {text}")
    return "\n".join(lines)


def options(name: str) -> str:
    """Options of every component called `name`, or of a section of the configuration; or what a kind of component must have."""
    types = {field.name: field.type for field in dataclasses.fields(RunConfig)}
    sections = {name: kind for name, kind in types.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
    blocks = []
    for kind in registry.KINDS:
        if name in registry.names(kind):
            blocks.append(f"{kind} {name} [{registry.origin(kind, name)}], {registry.source(kind, name)}")
            blocks.append(textwrap.indent(registry.documentation(kind, name), "  "))
            config = registry.options_of(kind, name)
            blocks.append("\noptions:" if config else "\nno options")
            blocks += _fields(config, "  ") if config else []
    if name in sections and sections[name] is not Component:
        blocks.append(f"section {name}")
        blocks += _fields(sections[name], "  ")
    if name in registry.KINDS:
        for use in contracts.USES[name]:
            built = f", built with {', '.join(['config', *use.context])}" if use.is_built else ""
            blocks += _contract(use.contract, f"kind {name}{f', {use.what}' * bool(use.what)}{built}")
    if not blocks:
        known = {name for kind in registry.KINDS for name in registry.names(kind)} | set(sections) | set(registry.KINDS)
        what = (
            f"--describe {name}: neither a component nor a section nor a kind"
            if name
            else "--describe: name a component or a section"
        )
        raise UserError(f"{what}{nearest(name, sorted(known))}")
    return "\n".join(blocks)


@dataclasses.dataclass(kw_only=True)
class PluginOptions:
    """The part of RunConfig that says where plugins are."""

    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    plugins: list[str] = dataclasses.field(default_factory=list)


def plugin_options(overrides: list[str]) -> dict[str, Any]:
    """`env.user_dir` and `plugins` where no configuration is given; other keys need one."""
    for option in overrides:
        key = option.partition("=")[0]
        if key not in ("env.user_dir", "plugins"):
            raise UserError(f"{option!r}: needs config=PATH; without one only env.user_dir and plugins are understood")
    given = config_files.listed(config_files.command_line(overrides), "plugins")
    options = merge(PluginOptions, given)
    return {"user_dir": options.env.user_dir, "modules": options.plugins}


def _contract(contract: type, title: str) -> list[str]:
    """What a component must have and may have (interfaces.py); then what contracts that extend its own add."""
    wanted, comments = contracts.members(contract), _comments(contract)
    lines = [f"{title} ({contract.__name__})", textwrap.indent(inspect.getdoc(contract) or "", "  ")]
    for heading, names in (("must have", [*wanted.methods, *wanted.attributes]), ("may have", list(wanted.optional))):
        lines += [f"\n{heading}:"] * bool(names)
        lines += [line for name in names for line in _member(contract, name, comments.get(name, ""))]
    for larger in contracts.extended(contract):
        more = contracts.members(larger)
        lines += [f"\nmust also have, as {larger.__name__}:", textwrap.indent(inspect.getdoc(larger) or "", "  ")]
        added = [name for name in [*more.methods, *more.attributes] if name not in [*wanted.methods, *wanted.attributes]]
        lines += [line for name in added for line in _member(larger, name, _comments(larger).get(name, ""))]
    return [*lines, ""]


def _member(contract: type, name: str, comment: str) -> list[str]:
    value = inspect.getattr_static(contract, name, None)
    if not isinstance(value, types.FunctionType):
        types_of = {key: kind for base in reversed(contract.__mro__) for key, kind in inspect.get_annotations(base).items()}
        default = f" = {value!r}" if hasattr(contract, name) else ""
        return [f"  {name}: {types_of[name]}{default}", *([f"      {comment}"] if comment else [])]
    arguments = ", ".join(list(inspect.signature(value).parameters)[1:])
    return [f"  {name}({arguments})", textwrap.indent(inspect.getdoc(value) or "", "      ")]


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as `--describe` prints it, and as the site's reference shows it."""

    key: str  # dotted, below the configuration that was asked for
    type: str
    default: str  # as YAML has it
    comment: str  # the one behind the field


def option_rows(config: type, prefix: str = "") -> list[Option]:
    """Every option of a configuration's dataclass, those of its sections too, in the order of its fields."""
    comments = _comments(config)
    rows = []
    for field in dataclasses.fields(config):
        if _is_section(field.type):
            rows += option_rows(field.type, f"{prefix}{field.name}.")
        else:
            rows.append(Option(prefix + field.name, _type(field.type), _default(field), comments.get(field.name, "")))
    return rows


def _is_section(kind: Any) -> typing.TypeGuard[type]:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not Component


def _fields(config: type, indent: str) -> list[str]:
    comments = _comments(config)
    lines = []
    for field in dataclasses.fields(config):
        if _is_section(field.type):
            lines.append(f"{indent}{field.name}:")
            lines += _fields(field.type, indent + "  ")
            continue
        lines.append(f"{indent}{field.name}: {_type(field.type)} = {_default(field)}")
        if comments.get(field.name):
            lines.append(f"{indent}    {comments[field.name]}")
    return lines


def _default(field: dataclasses.Field[Any]) -> str:
    value = default_of(field)
    if value is dataclasses.MISSING:
        return "(required)"
    if isinstance(value, Component):
        value = dataclasses.asdict(value)
    return yaml_text.dump(value, is_flow=True)


def _type(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Annotated:  # schema.FilePath, schema.Options
        return "path" if "path" in kind.__metadata__ else _type(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " | ".join("None" if part is type(None) else _type(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is dict:
        return f"dict[{', '.join(map(_type, typing.get_args(kind)))}]"
    return (
        kind.__name__
        if isinstance(kind, type) and not typing.get_args(kind)
        else str(kind).replace("typing.", "").replace("pixelbert_plugin.registry.schema.", "")
    )


def _comments(config: type) -> dict[str, str]:
    """The comment behind each field of a class and of its bases, read from the source."""
    comments: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if base is object or base.__module__ == "typing":
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # made at run time: no source to read
            continue
        lines = source.splitlines()
        definition = ast.parse(source).body[0]
        for node in definition.body if isinstance(definition, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno is not None:
                _, hash_sign, comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")
                comments[node.target.id] = comment.strip() if hash_sign else ""
    return comments
