"""Checkpoints that MMF's trainer wrote with our model: read without MMF, and nothing in them executed.

MMF saves `{"model": state dict, "optimizer": …, "config": …}` as .ckpt and the state dict alone as .pth. Ours is in there
under `model.`, and `_extra_state` holds the processors' vocabularies (pixelbert_plugin/mmf/model.py).
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint.weights import one_line, read_file
from pixelbert_plugin.errors import RunError, UserError

SUFFIXES = (".ckpt", ".pth")
PREFIX = "model."
EXTRA = "_extra_state"


@registry.register_checkpoint_reader("mmf")
class MmfCheckpoint:
    """A checkpoint of our model by MMF's trainer: .ckpt or .pth."""

    def recognises(self, path: Path) -> bool:
        return path.suffix in SUFFIXES

    def read(self, path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return read(path, key)


def pack(content: dict[str, Any]) -> Tensor:
    """JSON as a uint8 tensor, which torch.load reads with weights_only=True."""
    return torch.frombuffer(bytearray(json.dumps(content, ensure_ascii=False).encode()), dtype=torch.uint8)


def unpack(packed: Tensor) -> dict[str, Any]:
    return json.loads(bytes(packed.cpu().tolist()))


def read(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Our model's weights by our names, and `{"processors": …}`. Raises UserError where the file is none of these."""
    try:
        content = read_file(path)
        state = {name.removeprefix("module."): value for name, value in content.get("model", content).items()}
        weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
        extra = unpack(state[EXTRA])
        if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
            raise ValueError(f"no weights under {PREFIX!r}")
    except RunError:
        raise
    except Exception as error:
        raise UserError(f"{key}={str(path)!r}: not a checkpoint that MMF wrote with this model ({one_line(error)})") from error
    return weights, extra
