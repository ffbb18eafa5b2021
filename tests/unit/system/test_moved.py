"""Modules by their former names: the same objects, with a notice."""

import importlib
import sys

import pytest

from pixelbert_plugin.system import moved


@pytest.mark.parametrize(("former", "now"), moved.MOVED.items())
def test_a_former_name_gives_the_module_of_today(former, now):
    sys.modules.pop(f"pixelbert_plugin.{former}", None)
    with pytest.warns(DeprecationWarning, match=f"is pixelbert_plugin.{now} now"):
        found = importlib.import_module(f"pixelbert_plugin.{former}")
    assert found is importlib.import_module(f"pixelbert_plugin.{now}")
    assert found.__name__ == found.__spec__.name == f"pixelbert_plugin.{now}"


def test_what_a_plugin_imported_is_what_it_is_compared_with():
    with pytest.warns(DeprecationWarning):
        sys.modules.pop("pixelbert_plugin.schema", None)
        from pixelbert_plugin.schema import ConfigError
    from pixelbert_plugin.registry.schema import ConfigError as ConfigErrorNow

    assert ConfigError is ConfigErrorNow
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("pixelbert_plugin.engine.never_was")
