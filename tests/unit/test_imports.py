"""The architecture's rules, read off the source: who imports whom, how long files are, what is not mentioned."""

import ast
from pathlib import Path

import pytest

import pixelbert_plugin

PACKAGE = Path(pixelbert_plugin.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "projects" not in path.parts)

# what each part may import from the package, besides itself; engine.optim and engine.precision hold components,
# so they are free to be registered, and the rest of the engine knows no component
BASIC = {"errors", "schema", "registry", "types", "seeding", "weights", "nvidia_apex"}
ALLOWED = {
    "errors": set(),
    "seeding": set(),
    "yaml_text": {"errors"},
    "scalars": {"yaml_text"},
    "schema": {"errors", "scalars", "yaml_text"},
    "types": set(),
    "nvidia_apex": set(),
    "registry": {"errors", "schema", "yaml_text"},
    "weights": {"errors"},
    "options": {"schema"},
    "plugins": {"errors", "registry"},
    "saved": set(),
    "config_files": {"saved", "errors", "schema", "scalars", "yaml_text", "options"},
    "interpolation": {"schema", "scalars", "yaml_text"},
    "config": {"saved", "errors", "scalars", "schema", "registry", "options", "config_files", "interpolation", "yaml_text"},
    "describe": {"errors", "schema", "registry", "options", "config_files", "yaml_text"},
    "hub": {"weights"},
    "metrics": BASIC,
    "encoders": BASIC | {"hub"},
    "models": BASIC | {"encoders"},
    "processors": BASIC | {"hub", "metrics", "data.images"},  # the one place that opens an image
    "linux": set(),
    "data": BASIC | {"processors", "linux", "plugins"},
    "tasks": BASIC | {"processors", "metrics"},
    "mmf_checkpoint": {"errors", "weights"},
    "engine": BASIC | {"interrupt", "saved", "yaml_text", "options", "data", "tasks.base", "linux", "mmf_checkpoint"},
    "vocabularies": BASIC | {"options", "data"},
    "build": BASIC | {"vocabularies", "options", "data", "engine", "tasks.base"},
    "parts": BASIC | {"build", "options", "data", "engine", "tasks.base"},
    "report": {"errors", "registry", "parts", "build", "data", "engine"},
    "sanity": {"errors", "types", "parts", "report", "build", "data", "engine"},
    "console": set(),
    "interrupt": set(),
    "run": BASIC | {"saved", "console", "sanity", "parts", "report", "build", "config", "options", "data", "engine"},
    "sweep": {"errors", "schema", "config", "interpolation", "linux"},
    "sweep_cli": {"command", "console", "errors", "config", "sweep"},
    "miniature": {"errors", "schema", "seeding", "linux"},
    "data_cli": {
        "__version__",
        "command",
        "errors",
        "schema",
        "miniature",
        "plugins",
        "registry",
        "build",
        "vocabularies",
        "data",
    }
    | {"config", "config_files"},
    "arguments": {"__version__", "command"},
    "command": {"errors", "interrupt"},
    "new_plugin": {"errors", "registry"},
    "cli": {"arguments", "command", "errors", "schema", "config", "describe", "plugins", "run", "new_plugin"},
    "mmf": BASIC
    | {"__version__", "command", "config", "config_files", "yaml_text", "options", "plugins", "build", "data", "engine"}
    | {"tasks.base", "mmf_checkpoint"},
    "__main__": {"cli", "linux"},
    "__init__": set(),
}


def imported(path: Path) -> set[str]:
    """Names below pixelbert_plugin that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pixelbert_plugin":
            inner = node.module.removeprefix("pixelbert_plugin").lstrip(".")
            found |= {inner} if inner else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("pixelbert_plugin.") for alias in node.names if "pixelbert_plugin" in alias.name}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = ALLOWED[part] | {part}
    for name in imported(path):
        parents = {name, name.split(".")[0]}
        assert parents & allowed, f"{path.name} imports {name}"


def test_components_know_no_engine_and_the_engine_no_concrete_component():
    for path in FILES:
        part = path.relative_to(PACKAGE).parts[0]
        names = imported(path)
        if part in ("encoders", "models", "processors", "metrics", "tasks"):
            assert not any(name.startswith("engine") for name in names), path
        if part != "mmf" and part != "mmf_checkpoint.py":
            assert not any(name.split(".")[0] == "mmf" for name in names), path  # MMF stays optional
        if part == "engine":
            assert not any(name.split(".")[0] in ("encoders", "models", "processors", "metrics") for name in names), path
            assert not any(name.startswith("tasks") and name != "tasks.base" for name in names), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    limit = {"trainer.py": 260, "cli.py": 60}.get(path.name, 300)
    assert lines <= limit


def test_the_package_does_not_know_easy_vqa():
    for path in FILES:
        text = path.read_text(encoding="utf-8").lower()
        assert "easy_vqa" not in text and "easy-vqa" not in text, path


def test_the_tutorial_plugin_is_short():
    code = (PACKAGE.parent / "projects/easy_vqa/easy_vqa.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 60
