"""The components of this package, read off its source: what each is called, says of itself and takes, while none is imported.

Most of their modules need torch, which takes seconds to import. So a module is imported once its component is asked for, and
for the options alone the one that holds the `Config` is: `options.py` in the rooms that need torch.
"""

import ast
import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import UserError

PACKAGE = Path(__file__).parent.parent
ROOMS = (
    "models",
    "encoders",
    "processors",
    "data/builders",
    "tasks",
    "metrics",
    "optim",
    "precision",
    "trackers",
    "explanations",
    "mmf",
)
DECORATOR = re.compile(r"^@(registry\.)?register_\w+\(", re.MULTILINE)
Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class BuiltIn:
    """A class or function below a `@registry.register_…("name")`."""

    file: Path
    definition: Definition

    @property
    def module(self) -> str:
        return _module_of(self.file)

    @property
    def location(self) -> str:
        """ "file:line", as `registry.location` has it of what is imported."""
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.definition.decorator_list[0].lineno}"

    @property
    def documentation(self) -> str:
        return ast.get_docstring(self.definition) or ""

    def load(self) -> Any:
        """The class or function; its module is imported."""
        return getattr(importlib.import_module(self.module), self.definition.name)

    def config(self) -> Any:
        """The dataclass of its options, None where it takes none; only the module that defines it is imported."""
        place = _config_of(self.definition.name, self.file)
        if place is None:
            return None
        module, names = place
        found: Any = importlib.import_module(module)
        for name in names:
            found = getattr(found, name)
        return found


@cache
def components() -> dict[tuple[str, str], BuiltIn]:
    """By kind and name. Raises UserError where two have one name."""
    found: dict[tuple[str, str], BuiltIn] = {}
    for file in [file for room in ROOMS for file in sorted((PACKAGE / room).rglob("*.py"))]:
        if not DECORATOR.search(file.read_text(encoding="utf-8")):
            continue
        for definition in _definitions(file).values():
            for kind, name in _registered_as(definition):
                component = BuiltIn(file, definition)
                if (kind, name) in found:
                    where = f"by {found[kind, name].location} and by {component.location}"
                    raise UserError(f"{kind} {name!r} is registered twice: {where}; rename one of them")
                found[kind, name] = component
    return found


def _registered_as(definition: Definition) -> list[tuple[str, str]]:
    """Kind and name of each of its decorators that registers it."""
    found = []
    for decorator in definition.decorator_list:
        match decorator:
            case ast.Call(args=[ast.Constant(value=str(name))]):
                called = ast.unparse(decorator.func).removeprefix("registry.")
                found += [(called.removeprefix("register_"), name)] if called.startswith("register_") else []
    return found


def _config_of(name: str, file: Path) -> tuple[str, list[str]] | None:
    """Where the `Config` of the class or function `name` of a file is defined: a module, and the names that lead to it there.

    It is the class's own, or of the first of its bases that has one; a function's is set below it. None where there is none.
    """
    definition = _definitions(file).get(name)
    if definition is None:
        origin = _imported(file).get(name)
        return None if origin is None else _config_of(origin[1], origin[0])
    for statement in [*definition.body, *_tree(file).body]:
        if isinstance(statement, ast.ClassDef) and statement.name == "Config" and statement in definition.body:
            return _module_of(file), [name, "Config"]
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) in ("Config", f"{name}.Config"):
            value = ast.unparse(statement.value)
            origin = _imported(file).get(value)
            return (_module_of(file), [name, "Config"]) if origin is None else (_module_of(origin[0]), [origin[1]])
    for base in definition.bases if isinstance(definition, ast.ClassDef) else ():
        if (found := _config_of(ast.unparse(base), file)) is not None:
            return found
    return None


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _definitions(file: Path) -> dict[str, Definition]:
    """The classes and functions of a file, by name."""
    return {node.name: node for node in _tree(file).body if isinstance(node, Definition)}


def _imported(file: Path) -> dict[str, tuple[Path, str]]:
    """What a file imports from this package's modules: by the name that it has there, its file and its name in that."""
    found = {}
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
            source = PACKAGE.parent.joinpath(*str(node.module).split(".")).with_suffix(".py")
            if source.is_file():
                found.update({alias.asname or alias.name: (source, alias.name) for alias in node.names})
    return found


def _module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
