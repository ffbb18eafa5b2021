"""Going on from a checkpoint: verified first, then read, whatever the processes and the precision it was saved on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_plugin import mmf_checkpoint
from pixelbert_plugin.engine import export, tensor_store
from pixelbert_plugin.engine.checkpoint import CONFIG, MODEL, OPTIMIZER, STATE, TrainState, problem, rules
from pixelbert_plugin.engine.optim import set_parameter_state
from pixelbert_plugin.engine.precision import Fp32
from pixelbert_plugin.errors import UserError


def read_content(path: Path, key: str) -> dict[str, Any]:
    """What a checkpoint folder, verified first, or an exported or MMF's file says beside its tensors. Raises UserError."""
    if mmf_checkpoint.is_mmfs(path):
        return {"state": asdict(TrainState()), "versions": {}, **mmf_checkpoint.read(path, key)[1]}
    if path.is_file():
        return export.read_content(path, key)
    if not path.is_dir():
        raise UserError(f"{key}={str(path)!r}: no such checkpoint folder, and no exported file")
    reason = problem(path)
    if reason is not None:
        raise UserError(f"{key}={str(path)!r}: not a whole checkpoint: {reason}")
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        TrainState.read(content)
        tensor_store.read_index(path)
        content["config"] = (path / CONFIG).read_text(encoding="utf-8")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{key}={str(path)!r}: not a checkpoint of pixelbert-run ({type(error).__name__}: {error})") from error
    return content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what is wrong with the tensors of a checkpoint into one line."""
    try:
        yield
    except (OSError, tensor_store.HostileFileError) as error:
        raise UserError(f"checkpoint {str(path)!r} cannot be read: {error}") from error


def read_model(path: Path) -> dict[str, Tensor]:
    """The weights by name, whole, on the CPU; of a checkpoint folder or of a file. Verify with `read_content`."""
    if mmf_checkpoint.is_mmfs(path):
        return mmf_checkpoint.read(path, "checkpoint")[0]
    if path.is_file():
        from safetensors.torch import load_file

        return load_file(path)
    with reading(path):
        return tensor_store.read_all(path, MODEL)


def load_weights(path: Path, model: nn.Module, key: str) -> None:
    """All weights of a model that is not sharded. Raises UserError where the checkpoint is of another model."""
    try:
        model.load_state_dict(read_model(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{key}={str(path)!r}: its weights are of another model than this config's ({reason}); resume with the "
            "config it was made with, or take its weights with checkpoint.pretrained"
        ) from error


def load_best(path: Path, model: nn.Module) -> None:
    """The weights of another checkpoint of the same run, into a model that may be sharded."""
    from torch.distributed.tensor import DTensor

    own = model.state_dict()
    if any(isinstance(value, DTensor) for value in own.values()):  # then they share memory with the model's
        with reading(path):
            tensor_store.read({f"{MODEL}{name}": value for name, value in own.items()}, path)
    else:
        model.load_state_dict(read_model(path))


def load_training(
    path: Path,
    content: dict[str, Any],
    model: nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    precision: Fp32,
    key: str,
) -> TrainState:
    """Optimizers, loss scale and position of a verified checkpoint, whatever the processes and precision it was saved on."""
    parameters = precision.optimized(model)
    stored = {name: about for name, about in tensor_store.sizes(path).items() if name.startswith(OPTIMIZER)}
    unknown = {where.split("/")[2] for where in stored} - set(parameters)
    if rules(optimizers) != content.get("optimizers") or unknown:
        found = content.get("optimizers")
        what = f"parameters such as {min(unknown)}" if unknown else f"optimizers {found}, not {rules(optimizers)}"
        raise UserError(
            f"{key}={str(path)!r}: was saved with {what}; resume with the config it was made with, or take its weights with "
            "checkpoint.pretrained"
        )
    tensors = {}
    for where, (size, dtype) in stored.items():
        parameter = parameters[where.split("/")[2]].detach()
        is_like = size == parameter.shape  # then it is sharded as the parameter is
        tensors[where] = torch.zeros_like(parameter, dtype=dtype) if is_like else torch.zeros(size, dtype=dtype)
    with reading(path):
        tensor_store.read(tensors, path)
    states: dict[tuple[str, str], dict[str, Tensor]] = {}
    for where, value in tensors.items():
        _, group, name, kind = where.split("/")
        states.setdefault((group, name), {})[kind] = value
    for (group, name), state in states.items():
        set_parameter_state(optimizers[group], parameters[name], state)
    precision.load_state_dict(content.get("precision", {}).get("state", {}))
    return TrainState.read(content)
