"""`pixelbert-run --new-plugin NAME`: a small package with a data set, a YAML, an entry point and a test, ready to train."""

import builtins
import importlib.util
import json
import keyword
import os
import re
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError, writing

COLORS = {"red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 119, 180), "yellow": (240, 200, 40)}
SHAPES = ("circle", "square", "triangle")
MAX_NAME = 50  # characters
RESERVED = {"conftest", "setup", "src", "test", "tests"}  # what stands in the new package's own folder
SUFFIX = ".tmpl"  # of the template's files; `name` in a path stands for the plugin's


def write(name: str) -> str:
    """Write the package into a folder `name`, which must not be there. Returns what to do with it. Raises UserError."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > MAX_NAME or keyword.iskeyword(name):
        wanted = f"must be a Python name in small letters, digits and _, of at most {MAX_NAME}, such as my_pictures"
        raise UserError(f"--new-plugin {name[:200]!r}: {wanted}")
    if (taken := _taken(name)) is not None:
        raise UserError(f"--new-plugin {name!r}: {taken}")
    target = Path(name)
    values = {"name": name, "Class": "".join(part.capitalize() for part in name.split("_"))}
    template = Path(str(files(__name__) / "template"))
    with writing(target, "--new-plugin"):
        for file in sorted(template.rglob(f"*{SUFFIX}")):
            relative = str(file.relative_to(template)).removesuffix(SUFFIX)
            made = target.joinpath(*(part.replace("name", name) for part in Path(relative).parts))
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(Template(file.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
        _draw_pictures(target / "src" / name / "data")
    return f"pip install -e ./{name} && pixelbert-run config={name}/src/{name}/configs/{name}.yaml"


def _taken(name: str) -> str | None:
    """What has the name already, as a folder, a component, an import or a distribution: case, - and _ make no difference."""
    same = {_plain(entry): entry for entry in os.listdir()}
    if _plain(name) in same:
        return f"{same[_plain(name)]} is there already; choose another name, or remove it"
    for kind in registry.KINDS:
        for other in registry.names(kind):
            if _plain(other) == _plain(name):
                return f"there is a {kind} of this name [{registry.origin(kind, other)}]; choose another"
    if keyword.issoftkeyword(name) or hasattr(builtins, name):
        return "is a word of Python's own; choose another"
    if name in sys.stdlib_module_names or name in RESERVED:
        return "is a module's name that Python or its test runner uses; choose another"
    for distribution in metadata.distributions():
        if _plain(distribution.name or "") == _plain(name):
            return f"is the name of an installed distribution, {distribution.name} {distribution.version}; choose another"
    imports = {_plain(module): module for module in metadata.packages_distributions()}
    if _plain(name) in imports or importlib.util.find_spec(name) is not None:
        return f"is the name of an installed module, {imports.get(_plain(name), name)}; choose another"
    return None


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _draw_pictures(folder: Path) -> None:
    """Twelve pictures of one coloured shape each, with two questions about each: eight to train on, four to validate."""
    from PIL import Image, ImageDraw

    folder.mkdir()
    rows: dict[str, list[dict[str, str]]] = {"train": [], "val": []}
    for number in range(12):
        color, shape = list(COLORS)[number % 4], SHAPES[number % 3]
        left, top = 6 + 5 * (number % 4), 4 + 4 * (number % 3)
        picture = Image.new("RGB", (64, 48), "white")
        draw, box = ImageDraw.Draw(picture), (left, top, left + 30, top + 30)
        if shape == "circle":
            draw.ellipse(box, fill=COLORS[color])
        elif shape == "square":
            draw.rectangle(box, fill=COLORS[color])
        else:
            draw.polygon([(left + 15, top), (left, top + 30), (left + 30, top + 30)], fill=COLORS[color])
        picture.save(folder / f"{number:02d}.png")
        split = "val" if number % 3 == 1 else "train"
        for question, answer in (("what color is it?", color), ("is it a square?", "yes" if shape == "square" else "no")):
            rows[split].append({"image": f"{number:02d}.png", "question": question, "answer": answer})
    for split, content in rows.items():
        (folder / f"{split}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
