"""Loading the user's components: those of `env.user_dir` (MMF's way) and those of `plugins: [module]`."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path

from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.registry import registry

USER_MODULE = "pixelbert_user_"  # how the module names of env.user_dir begin


def load(user_dir: str | None = None, modules: list[str] | None = None) -> None:
    """Import the user's components; refuse names that entry points and decorators both claim."""
    if user_dir:
        _load_user_dir(Path(user_dir))
    for module in modules or []:
        try:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ImportError("is no module's name, such as my_package.builders")
            importlib.import_module(module)
        except RunError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                f"plugins: {module!r} cannot be imported ({type(error).__name__}: {error}); install it or correct the name"
            ) from error
    _refuse_shadowing()


def _load_user_dir(path: Path) -> None:
    """A folder with `__init__.py` is imported as a package, any other folder file by file; a file by itself."""
    if not path.exists():
        raise UserError(
            f"env.user_dir={str(path)!r}: no such file or folder; it names the plugin's Python code, "
            "and where that was moved, env.user_dir=PATH on the command line says where to"
        )
    package = path / "__init__.py"
    try:
        found = [path] if not path.is_dir() else [package] if package.exists() else sorted(path.glob("*.py"))
    except OSError as error:
        raise UserError(f"env.user_dir={str(path)!r}: cannot be read ({error.strerror})") from error
    files = [file for file in found if file.is_file() and file.suffix == ".py"]
    if not files:
        is_folder = "no Python file in this folder" if path.is_dir() else "is no Python file (name.py)"
        raise UserError(f"env.user_dir={str(path)!r}: {is_folder}; it names the plugin's Python code")
    for file in files:
        _import_file(file)


def user_files() -> list[Path]:
    """The files of `env.user_dir` that this process has imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith(USER_MODULE)]
    return [Path(module.__file__) for module in modules if module.__file__]


def load_files(files: list[Path]) -> None:
    """Import them in another process, so that objects of their classes can be unpickled."""
    for file in files:
        _import_file(file)


def _import_file(file: Path) -> None:
    """Import a file under a name of its own, once per process (a second run must not register it again)."""
    file = file.resolve()
    stem = file.parent.name if file.name == "__init__.py" else file.stem
    name = f"{USER_MODULE}{stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    is_package = file.name == "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)] if is_package else None
    )
    if spec is None or spec.loader is None:
        raise UserError(f"env.user_dir: {file} is no Python file (name.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, RunError):
            raise
        missing = f"; pip install {error.name}" if isinstance(error, ModuleNotFoundError) else ""
        raise UserError(f"env.user_dir: {file} cannot be imported ({type(error).__name__}: {error}){missing}") from error


def _refuse_shadowing() -> None:
    """An entry point that takes a registered name would silently win in catalogue: say so at once instead."""
    for kind in registry.KINDS:
        points = [point.name for point in registry._entry_points(kind)]
        for name in points:
            if points.count(name) > 1 or name in registry._registered(kind) or registry._built_in(kind, name):
                registry.get(kind, name)
