"""The architecture's rules, read off the source: who imports whom, what is not mentioned."""

import ast
from pathlib import Path

import pytest

import pixelbert_plugin

PACKAGE = Path(pixelbert_plugin.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "projects" not in path.parts)

# the rooms from the lowest up, and what of the package each may import besides itself and the BASIC ones
BASIC = {"errors", "seeding", "types", "interfaces", "registry", "system"}
WEIGHTS = {"checkpoint.weights", "checkpoint.hub", "checkpoint.array_pickle"}  # how components read weights of others
COMPONENTS = {"metrics", "processors", "encoders", "models", "tasks", "optim", "precision", "explanations"}
ALLOWED = {
    "errors": set(),
    "seeding": set(),
    "system": set(),
    "registry": {"errors", "interfaces", "types"},
    "interfaces": {"types", "data.images", "encoders.row_dropout"},  # for annotations alone
    "types": set(),
    "config": set(),
    "metrics": set(),
    "processors": {"metrics", "data.images"} | WEIGHTS,  # the one place that opens an image
    "encoders": {"precision.apex.nvidia"} | WEIGHTS,  # whether Apex's layer norm can be used
    "models": {"encoders"} | WEIGHTS,
    "tasks": {"processors", "metrics"},
    "optim": set(),
    "precision": {"config.options", "optim"},
    "explanations": set(),
    "data": {"config.options", "processors"},
    "distributed": {"precision", "tasks.base"},
    "checkpoint": {"config", "distributed", "optim", "precision"},
    "training": {
        "config",
        "data",
        "tasks.base",
        "precision",
        "distributed",
        "checkpoint",
        "evaluation",
        "parts",
        "explanations",  # what a model looks at, for pictures
    },
    "trackers": set(),
    "evaluation": {"config", "data", "tasks.base", "precision", "distributed", "build", "parts"},
    "build": {"__version__", "config", "data", "tasks.base", "distributed", "checkpoint"},
    "parts": {"config", "data", "tasks.base", "precision", "distributed", "checkpoint", "training", "build"},
    "run": {
        "config",
        "data",
        "distributed",
        "checkpoint",
        "training",
        "evaluation",
        "build",
        "parts",
        "loading",
        "graphs",
        "huggingface",
    },
    "sweep": {"config"},
    "dry_run": {"config", "checkpoint", "evaluation", "parts", "planning", "run", "training"},
    "comparing": {"config", "data", "metrics", "tasks.base"},
    "planning": {"config", "data", "precision", "distributed.parallel", "training", "build", "encoders", "processors"},
    "miniature": set(),
    "commands": {
        "__version__",
        "config",
        "build",
        "data",
        "encoders",
        "run",
        "sweep",
        "comparing",
        "dry_run",
        "planning",
        "miniature",
        "loading",
        "asking",
        "demo",
        "checkpoint.folder",  # a checkpoint's digest
        "processors.answers",  # the classes of answers that a vocabulary is counted in
    },
    "mmf": {
        "__version__",
        "config",
        "commands.command",
        "data",
        "tasks.base",
        "distributed",
        "checkpoint",
        "training",
        "evaluation.baseline",
        "build",
    },
    "graphs": {"asking.loaded_model", "checkpoint.weights", "models"},
    "huggingface": {"asking.loaded_model", "config", "data.images", "encoders.masked_norm", "models", "processors", "tasks"},
    "__main__": {"commands"},
    "asking": {"config.options", "data", "tasks.base", "precision"},
    "demo": {"asking", "config.shipped", "data.images"},  # of the latter the remedy in its errors, which is none of a visitor's
    "loading": {"config", "data", "checkpoint", "tasks.base", "precision", "build", "asking.loaded_model"},
    "__init__": {"config.options", "data.builders.base", "loading", "run", "tasks.base", "asking"},  # the public face
}


def imported(path: Path) -> set[str]:
    """Names below pixelbert_plugin that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pixelbert_plugin":
            inner = node.module.removeprefix("pixelbert_plugin").lstrip(".")
            found |= {f"{inner}.{alias.name}".lstrip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("pixelbert_plugin.") for alias in node.names if "pixelbert_plugin" in alias.name}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = ALLOWED[room] | {room} | (BASIC if room not in BASIC else BASIC & {"errors"})
    for name in imported(path):
        parts = name.split(".")
        assert {".".join(parts[:length]) for length in range(1, len(parts) + 1)} & allowed, f"{path.name} imports {name}"


def test_components_know_no_loop_and_the_loop_no_concrete_component():
    for path in FILES:
        room = path.relative_to(PACKAGE).parts[0]
        rooms = {name.split(".")[0] for name in imported(path)}
        if room in COMPONENTS:
            assert not rooms & {"training", "evaluation", "distributed", "build", "parts", "run"}, path
        if room != "mmf":
            assert "mmf" not in rooms, path  # MMF stays optional
        if room in ("training", "evaluation", "checkpoint", "distributed"):
            assert not rooms & {"encoders", "models", "processors", "metrics"}, path


def test_gradio_is_imported_by_the_demo_alone():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            if any(name.split(".")[0] in ("gradio", "gradio_client", "fastapi", "uvicorn") for name in names):
                assert path.relative_to(PACKAGE).parts[0] == "demo", path


def test_the_package_does_not_know_easy_vqa():
    for path in FILES:
        text = path.read_text(encoding="utf-8").lower()
        assert "easy_vqa" not in text and "easy-vqa" not in text, path


def test_the_tutorial_plugin_is_short():
    code = (PACKAGE.parent / "projects/easy_vqa/easy_vqa.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 60


UNIT = Path(__file__).parent
OF_THE_WHOLE = {"test_imports", "test_paper_recipes", "test_public_face", "test_readme_commands"}  # no single module's


def has_module(test: Path) -> bool:
    """Whether a test file is that of a module in its place, test_MODULE or test_MODULE_ASPECT, or of the room: test_ROOM."""
    name, folder = test.stem.removeprefix("test_"), PACKAGE / test.parent.relative_to(UNIT)
    words = name.split("_")
    names = {"_".join(words[:length]) for length in range(1, len(words) + 1)}
    return folder.is_dir() and (name == folder.name or any((folder / f"{found}.py").is_file() for found in names))


@pytest.mark.parametrize("test", sorted(UNIT.rglob("test_*.py")), ids=lambda path: str(path.relative_to(UNIT)))
def test_a_modules_tests_are_found_by_its_name(test):
    assert test.stem in OF_THE_WHOLE or has_module(test), "tests/unit/ROOM/test_MODULE.py tests pixelbert_plugin/ROOM/MODULE.py"


def test_a_test_without_its_module_is_noticed():
    assert has_module(UNIT / "data/test_reader_draws.py") and has_module(UNIT / "sweep/test_sweep.py")
    assert not has_module(UNIT / "data/test_draws.py") and not has_module(UNIT / "test_step.py")
