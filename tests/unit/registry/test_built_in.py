"""What the source says of a component, without its import, is what the import gives."""

import inspect
import re
import sys

import pytest

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import built_in, contracts


def test_every_decorator_in_the_package_is_found():
    decorator = re.compile(r'^@(?:registry\.)?register_([a-z_]+)\("([^"]+)"\)$', re.M)
    files = [file for file in built_in.PACKAGE.rglob("*.py") if "projects" not in file.relative_to(built_in.PACKAGE).parts]
    found = [match for file in files for match in decorator.findall(file.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(built_in.components()) and len(found) > 30


@pytest.mark.parametrize(("kind", "name"), sorted(built_in.components()))
def test_the_source_and_the_import_agree(kind, name):
    component = built_in.components()[kind, name]
    config = component.config()
    imported = registry.get(kind, name)
    assert component.load() is imported and contracts.config_of(imported) is config
    assert component.documentation == inspect.getdoc(imported) and component.location == registry.location(imported)


ELSEWHERE = """
class foreign:
    Thing = type("Thing", (), {})
    registry = staticmethod(lambda component: component)


def named(name):
    return lambda component: component


register_model = register_task = register_optimizer = named
"""
SOURCES = {
    "options.py": "class Shared:\n    pass\n",
    "base.py": "from other_package.rooms.options import Shared\n\n\nclass Base:\n    Config = Shared\n",
    "one.py": '''
from elsewhere import foreign
from other_package.rooms.base import Base as Own
from other_package.rooms.options import Shared as Mine


@register_model("inner")
class Inner:
    """Inner.

    More of it.
    """

    class Config:
        pass


@foreign.registry
@registry.register_task("inherited")
class Inherited(foreign.Thing, Own):
    pass


@registry.register_model("made")
class Made:
    Config = type("Config", (), {})


@registry.register_optimizer("function")
def function():
    """A function."""


@registry.register_optimizer("none")
@registry.register_optimizer("none_either")
class Without(foreign.Thing):
    depth = 3


function.Config = Mine
''',
}


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Another package in the place of this one, whose decorators do nothing."""
    rooms = tmp_path / "other_package/rooms"
    rooms.mkdir(parents=True)
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    for name, text in SOURCES.items():
        head = "" if name != "one.py" else "import elsewhere as registry\nfrom elsewhere import register_model\n"
        (rooms / name).write_text(head + text)
    monkeypatch.setattr(built_in, "PACKAGE", tmp_path / "other_package")
    monkeypatch.setattr(built_in, "ROOMS", ("rooms",))
    monkeypatch.syspath_prepend(tmp_path)
    yield rooms
    for name in [name for name in sys.modules if name.partition(".")[0] in ("other_package", "elsewhere")]:
        del sys.modules[name]


def found(kind, name):
    return built_in.components.__wrapped__()[kind, name]


def test_options_are_found_however_a_component_names_them(other_package):
    assert set(built_in.components.__wrapped__()) == {
        *(("model", "inner"), ("model", "made"), ("task", "inherited")),
        *(("optimizer", "function"), ("optimizer", "none"), ("optimizer", "none_either")),
    }
    shared = found("task", "inherited").config()
    assert shared.__module__ == "other_package.rooms.options" and "other_package.rooms.one" not in sys.modules
    assert found("optimizer", "function").config() is shared and "other_package.rooms.one" not in sys.modules
    assert found("optimizer", "none").config() is None and "other_package.rooms.one" not in sys.modules
    for name in ("inner", "made"):  # which nobody sees without the module itself
        assert found("model", name).config() is found("model", name).load().Config
    assert found("model", "inner").documentation == "Inner.\n\nMore of it."
    assert found("task", "inherited").location == "other_package/rooms/one.py:20"


def test_a_name_that_two_modules_give_is_refused(other_package):
    (other_package / "two.py").write_text("\n@registry.register_model('inner')\nclass Other:\n    pass\n")
    where = r"by other_package/rooms/one\.py:\d+ and by other_package/rooms/two\.py:2"
    with pytest.raises(UserError, match=rf"^model 'inner' is registered twice: {where}; rename one of them$"):
        built_in.components.__wrapped__()
