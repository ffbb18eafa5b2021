"""One safetensors file of a checkpoint, for use elsewhere: float32 weights; configuration, vocabulary and versions as JSON.

The file's metadata has the key `pixelbert_plugin`: {"config": YAML text, "processors": {"text": {…}, …}, "state": {…},
"versions": {…}}. `checkpoint.pretrained=FILE` starts a run from it, or evaluates it.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixelbert_plugin.engine.checkpoint import TrainState
from pixelbert_plugin.errors import UserError, replacing, writing

SUFFIX = ".safetensors"
METADATA = "pixelbert_plugin"


def write(target: Path, weights: dict[str, Tensor], content: dict[str, Any]) -> Path:
    """Write `target` from a checkpoint's weights and what it says beside them. Raises UserError."""
    if target.suffix != SUFFIX:
        raise UserError(f"--export {str(target)!r}: must end in {SUFFIX}")
    metadata = {"format": "pt", METADATA: json.dumps(content, ensure_ascii=False)}  # "pt": what transformers and others expect
    with writing(target, "--export"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as aside:
            try:
                save_file({name: value.contiguous() for name, value in weights.items()}, aside, metadata)
            except SafetensorError as error:  # of a full disk, it says no more than its message
                raise OSError(str(error)) from error
    return target


def read_content(path: Path, key: str) -> dict[str, Any]:
    """What an exported file says beside its weights. Raises UserError."""
    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})[METADATA])
        TrainState.read(content)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{key}={str(path)!r}: not a file that pixelbert-run --export wrote ({type(error).__name__}: {error})"
        ) from error
    return content
