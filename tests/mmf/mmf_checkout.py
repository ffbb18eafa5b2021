"""MMF's checkout is not on PyPI: its folder is given by MMF_CHECKOUT, and its packages are those of docs/mmf.md."""

import importlib.util
import os
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


needs_mmf = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
