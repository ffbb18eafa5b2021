"""One safetensors file of a checkpoint, for use elsewhere: weights; configuration, vocabulary and versions as JSON.

The file's metadata has the key `pixelbert_plugin`: {"config": YAML text, "processors": {"text": {…}, …}, "state": {…},
"versions": {…}}, and `pixelbert_plugin_sha256`, over that and the tensors. `checkpoint.pretrained=FILE` starts a training from
it, `checkpoint.resume_file=FILE` evaluates it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pixelbert_plugin.checkpoint import content
from pixelbert_plugin.checkpoint.weights import one_line, write_weights
from pixelbert_plugin.config import saved
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.registry import yaml_text
from pixelbert_plugin.system.foreign import what_else

SUFFIX = ".safetensors"
METADATA = "pixelbert_plugin"
DIGEST = "pixelbert_plugin_sha256"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # by the command's names, those of training.precision


def write(target: Path, weights: dict[str, Tensor], metadata: dict[str, Any], dtype: str = "fp32") -> Path:
    """Write `target` from a checkpoint's weights and what it says beside them. Raises UserError.

    `dtype`: a name of DTYPES. bf16 rounds matrices and filters; vectors (norms and their statistics, biases) stay as they are,
    since they take no room. Whatever reads the file has float32 of it.
    """
    if target.suffix != SUFFIX:
        raise UserError(f"--export {str(target)!r}: must end in {SUFFIX}")
    if os.path.lexists(target):
        raise UserError(f"--export {str(target)!r}: is there already; remove it, or choose another name")
    tensors = {name: _stored(value, DTYPES[dtype]).contiguous() for name, value in weights.items()}
    text = json.dumps({**portable(metadata), "is_sealed": True}, ensure_ascii=False)
    metadata = {"format": "pt", METADATA: text}  # "pt": what transformers and others expect
    with writing(target, "--export"):
        write_weights(target, tensors, {**metadata, DIGEST: digest_of(tensors, metadata)})
    return target


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() and value.dim() > 1 else value


def digest_of(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of the metadata and of every tensor's name, type, shape and bytes, in the order of their names."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_content(path: Path, key: str) -> dict[str, Any]:
    """What an exported file says beside its weights, once its digest is found right. Raises UserError.

    Files of earlier versions have no digest; they say so by their content, which has no `is_sealed`.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
        if METADATA not in metadata:
            raise ValueError(f"its metadata has no {METADATA}")
        found, digest = content.parse(metadata[METADATA]), metadata.pop(DIGEST, None)
        is_whole = digest == digest_of(load_file(path), metadata) if digest or "is_sealed" in found else True
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        told = what_else(path) or f"not a file that pixelbert-run --export wrote ({one_line(error)})"
        raise UserError(f"{key}={str(path)!r}: {told}") from error
    if not is_whole:
        raise UserError(f"{key}={str(path)!r}: is not as it was written (SHA-256 differs); export it again, or copy it again")
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of an exported file, bfloat16 ones in float32; verify it with `read_content`."""
    try:
        found = load_file(path)
        return {name: value.float() if value.dtype == torch.bfloat16 else value for name, value in found.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{str(path)!r}: cannot be read ({one_line(error)})") from error


def portable(metadata: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says, without where things lie on this machine."""
    sources = [
        {**source, "path": "/".join(Path(str(source.get("path"))).parts[-3:])} for source in metadata.get("started_from", [])
    ]
    values = yaml.safe_load(metadata.get("config", ""))
    if not isinstance(values, dict):
        return metadata
    saved.take_once(values)  # an earlier version's
    env = values.pop("env", None) or {}
    if env.get("user_dir"):
        values["env"] = {"user_dir": Path(env["user_dir"]).name}
    return {**metadata, "config": yaml_text.dump(values), "started_from": sources}
