"""MMF's checkout is not on PyPI: its folder is given by MMF_CHECKOUT, and its packages are those of docs/mmf.md."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

CHECKOUT = os.environ.get("MMF_CHECKOUT")
NEEDED = ("iopath", "termcolor", "lmdb", "matplotlib", "requests", "sklearn", "pytorch_lightning")


def why_not() -> str | None:
    if not CHECKOUT:
        return "needs facebookresearch/mmf: set MMF_CHECKOUT to its folder (docs/mmf.md)"
    if not (Path(CHECKOUT) / "mmf/trainers/mmf_trainer.py").is_file():
        return f"MMF_CHECKOUT={CHECKOUT}: no checkout of facebookresearch/mmf"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"MMF needs {', '.join(missing)} (docs/mmf.md)" if missing else None


def pytest_collection_modifyitems(items):
    reason = why_not()
    for item in items:
        if reason and Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def mmf():
    """MMF with our components in its registry, in this process."""
    sys.path.insert(0, CHECKOUT)
    from pixelbert_plugin.mmf.compat import import_mmf
    from pixelbert_plugin.mmf.register import register_all

    import_mmf()
    register_all()
    register_all()  # twice does nothing new
    from mmf.common.registry import registry

    return registry
