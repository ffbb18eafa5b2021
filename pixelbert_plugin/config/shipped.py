"""The configurations that come with the package: what `--list` shows of them, and `--copy-config NAME`; and a trained model.

A configuration's short name is its path below its project's `configs/`: vqa2, mini/vqa2.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pixelbert_plugin.config import files
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.registry.scalars import shown
from pixelbert_plugin.registry.schema import nearest

PROJECTS = "projects"


@dataclass(frozen=True)
class Trained:
    """A trained model to begin with: a project's folder `trained`, and what it can be asked there."""

    folder: Path

    @property
    def name(self) -> str:
        """projects/NAME/trained."""
        return Path(*self.folder.parts[-3:]).as_posix()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def picture(self) -> Path:
        return self.folder / "picture.png"

    def question(self) -> str:
        """About the picture."""
        return (self.folder / "question.txt").read_text(encoding="utf-8").strip()


def trained() -> Trained:
    """The model that is asked where no checkpoint is named. Raises UserError where the installation lacks it."""
    for file in sorted(_projects().glob("*/trained/model.safetensors")):
        return Trained(file.parent)
    raise UserError("checkpoint: is not set, and the package lacks the trained model that should come with it; name one")


def _projects() -> Path:
    folder = files.PACKAGE / PROJECTS
    return folder if folder.is_dir() else files.PACKAGE.parent / PROJECTS


def configurations() -> dict[str, Path]:
    """Every shipped configuration that can be run, by the path that `config=` takes."""
    folder = _projects()
    found = {}
    for file in sorted(folder.glob("*/configs/**/*.yaml")):
        if "datasets" in files.read(file, [])[0]:  # the others are what these include
            found[(PROJECTS / file.relative_to(folder)).as_posix()] = file
    return found


def descriptions() -> dict[str, str]:
    """By the path that `config=` takes, the first sentence of the comment at the top of each."""
    return {path: _description(file.read_text(encoding="utf-8")) for path, file in configurations().items()}


def listing() -> str:
    """Name, path and the first sentence of each, a line each."""
    lines = [f"  {short_name(path):<24} [{path}] {text}" for path, text in descriptions().items()]
    return "\n".join(["configurations", *lines])


def short_name(path: str) -> str:
    """projects/pixelbert/configs/mini/vqa2.yaml → mini/vqa2."""
    return path.partition("/configs/")[2].removesuffix(".yaml")


def copy(name: str) -> str:
    """Write the configuration `name`, a short name or a path, into the working folder. Returns the command that runs it.

    What the file names relative to itself (its includes, `env.user_dir`) is named from the package's root instead, where
    it is found from any folder. Raises UserError for an unknown or ambiguous name, and where the file is there already.
    """
    known = configurations()
    path = _chosen(name, list(known))
    target = Path(short_name(path).replace("/", "_") + ".yaml")
    text = _from_anywhere(known[path], path)
    with writing(target, "--copy-config"):
        try:
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise UserError(
                f"--copy-config {name}: {target} is there already; move it away, or work in another folder"
            ) from None
    return f"pixelbert-run config={target}"


def _chosen(name: str, paths: list[str]) -> str:
    """The one of `paths` that `name` means: the path, project/short name, or a short name that only one has."""
    wanted = name.removesuffix(".yaml")
    by_project = {path: f"{path.split('/')[1]}/{short_name(path)}" for path in paths}
    for names in ({path: path.removesuffix(".yaml") for path in paths}, by_project, {path: short_name(path) for path in paths}):
        found = [path for path in paths if names[path] == wanted]
        if len(found) > 1:
            choices = " or ".join(by_project[path] for path in found)
            raise UserError(f"--copy-config {name}: is ambiguous; give {choices}")
        if found:
            return found[0]
    short = sorted({short_name(path) for path in paths})
    raise UserError(f"--copy-config {shown(name)}: no such configuration{nearest(wanted, short)}")


def _description(text: str) -> str:
    """The first sentence of the comment at the top of a file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return re.split(r"(?<=[.;:])\s", " ".join(lines), maxsplit=1)[0].rstrip(".;:")


def _from_anywhere(file: Path, path: str) -> str:
    """The text of a shipped file whose includes and `env.user_dir` are named from the package's root; the rest as it is."""
    text = file.read_text(encoding="utf-8")
    root = file.resolve().parents[len(Path(path).parts) - 1]
    places = []
    for node in _paths(yaml.compose(text)):
        target = (file.parent / node.value).resolve().relative_to(root)
        places.append((node.start_mark.index, node.end_mark.index, target.as_posix()))
    for start, end, target in sorted(places, reverse=True):
        text = text[:start] + target + text[end:]
    return f"# A copy of {path}; paths that comments name are relative to that file.\n{text}"


def _paths(top: Any) -> list[yaml.ScalarNode]:
    """The scalars of a configuration that are paths relative to its file."""
    found = []
    for key, value in top.value:
        if key.value == "includes":
            found += value.value
        elif key.value == "env":
            found += [inner for name, inner in value.value if name.value == "user_dir"]
    return found
