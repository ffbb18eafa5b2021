"""MMF beside today's torch, torchvision, transformers and pytorch-lightning: what its main branch misses, put in its place.

MMF pins torch 1.11; nothing here changes its files. The stand-ins must be there before MMF is imported, which is why
`env.user_dir` alone comes too late for them.
"""

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from pixelbert_plugin.errors import UserError

logger = logging.getLogger(__name__)
FOLDERS = ("common", "modules", "datasets", "models", "trainers")  # of MMF, whose files register components
REMEDY = "docs/mmf.md has the commands that install it"


def import_mmf() -> None:
    """Import MMF with all of its components that can be imported. Raises UserError where MMF itself cannot."""
    _put_stand_ins()
    try:
        import mmf
        from mmf.common.registry import registry
    except Exception as error:
        raise UserError(f"MMF cannot be imported ({type(error).__name__}: {error}); {REMEDY}") from error
    root = Path(mmf.__file__).parent
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            if file.name != "__init__.py":
                name = ".".join(("mmf", *file.relative_to(root).with_suffix("").parts))
                try:
                    importlib.import_module(name)
                except Exception as error:  # a data set or model of MMF's whose own packages are not there
                    logger.debug("%s is left out: %s: %s", name, type(error).__name__, error)
    registry.register("imports_setup", True)  # MMF's own loop over these files stops at the first that fails


def _put_stand_ins() -> None:
    """What MMF imports and today's packages have no more."""
    try:
        import pytorch_lightning.callbacks
        import torchvision.io
    except ImportError as error:
        raise UserError(f"MMF needs {error.name}, which is not installed; {REMEDY}") from error
    sys.modules.setdefault("pytorch_lightning.callbacks.base", pytorch_lightning.callbacks)
    if not hasattr(torchvision.io, "read_video"):
        torchvision.io.read_video = _no_video
    if importlib.util.find_spec("torchtext") is None:  # archived; MMF asks it for the names of pre-trained vectors
        torchtext, vocab = ModuleType("torchtext"), ModuleType("torchtext.vocab")
        vars(vocab)["pretrained_aliases"], vars(torchtext)["vocab"] = {}, vocab
        sys.modules |= {"torchtext": torchtext, "torchtext.vocab": vocab}


def _no_video(*_arguments: object, **_options: object) -> NoReturn:
    raise UserError("torchvision.io.read_video is gone from this torchvision; MMF's video data sets cannot be read")
