"""Going on from a checkpoint: verified first, then read, whatever the processes and the precision it was saved on."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_plugin.checkpoint import content, evaluated, export, huggingface_folder, tensor_index, tensor_store
from pixelbert_plugin.checkpoint.checkpoints import MODEL, OPTIMIZER, TrainState, rules
from pixelbert_plugin.checkpoint.folder import CONFIG, DIGESTS, STATE, is_own, problem
from pixelbert_plugin.checkpoint.readers import reader_of
from pixelbert_plugin.checkpoint.weights import compare, load_reported, one_line
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.optim.optimizer_state import set_parameter_state
from pixelbert_plugin.precision.native import Precision


def read_content(path: Path, key: str) -> dict[str, Any]:
    """What a checkpoint folder, verified first, a file, or a folder of transformers' says beside its tensors. Raises
    UserError."""
    if os.path.isfile(path):
        return _read_file_content(path, key)
    if huggingface_folder.is_one(path):
        return huggingface_folder.read_content(path, key)
    require_checkpoint(path, key)
    reason = problem(path)
    if reason is not None:
        raise UserError(f"{key}={str(path)!r}: not a whole checkpoint: {reason}")
    try:
        found = content.parse((path / STATE).read_text(encoding="utf-8"))
        found["state"] |= evaluated.read(path)
        content.check(found)
        tensor_index.read_index(path)
        found["config"] = (path / CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{key}={str(path)!r}: not a checkpoint of pixelbert-run ({one_line(error)})") from error
    return found


def _read_file_content(path: Path, key: str) -> dict[str, Any]:
    if is_own(path) and (path.parent / DIGESTS).exists():
        raise UserError(f"{key}={str(path)!r}: is one file of a checkpoint; name its folder, {key}={path.parent}")
    reader = reader_of(path)
    if reader is None:
        return export.read_content(path, key)
    found = {"state": asdict(TrainState()), "versions": {}, **reader.read(path, key)[1]}
    try:
        content.check(found)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{key}={str(path)!r}: not a checkpoint of this model ({one_line(error)})") from error
    return found


def require_checkpoint(path: Path, key: str) -> None:
    """Raises UserError where `path` is no folder, or is the folder of a run or of its checkpoints."""
    if not os.path.isdir(path):
        raise UserError(f"{key}={str(path)[:300]!r}: no such checkpoint folder, and no exported file")
    for folder, what in ((path / "checkpoints", "a run's folder"), (path, "the folder of a run's checkpoints")):
        names = sorted(file.parent.name for file in folder.glob(f"*/{DIGESTS}"))
        if names and not (path / DIGESTS).exists():
            raise UserError(f"{key}={str(path)!r}: is {what}; name one of its checkpoints, {key}={folder / names[0]}")


def started_from(run: Path) -> str | None:
    """What a run's weights started from, as one of its checkpoints says; None where none does."""
    for path in (run / "checkpoints").glob(f"*/{STATE}"):
        try:
            return source_name(content.parse(path.read_text(encoding="utf-8"))["started_from"][-1])
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return None


def source_name(source: dict[str, Any]) -> str:
    """An entry of a checkpoint's `started_from`, to be told."""
    return f"{source['key']}={source['path']!r}, after its update {source['update']}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what is wrong with the tensors of a checkpoint into one line."""
    try:
        yield
    except (OSError, tensor_index.HostileFileError) as error:
        raise UserError(f"checkpoint {str(path)!r} cannot be read: {error}") from error


def read_model(path: Path) -> dict[str, Tensor]:
    """The weights by name, whole, on the CPU; of a checkpoint folder, a file or a folder of transformers'. Verify with
    `read_content`."""
    if (reader := reader_of(path)) is not None:
        return reader.read(path, "checkpoint")[0]
    if os.path.isfile(path):
        return export.read_weights(path)
    if huggingface_folder.is_one(path):
        return huggingface_folder.read_weights(path)
    with reading(path):
        return tensor_store.read_all(path, MODEL)


def load_weights(path: Path, model: nn.Module, key: str, spare: tuple[str, ...] = ()) -> None:
    """All weights of a model that is not sharded. Raises UserError where the checkpoint is of another model.

    `spare`: prefixes of names that the checkpoint may have beyond the model's, as other tasks' heads in an evaluation.
    """
    own = model.state_dict()
    weights = {name: value for name, value in read_model(path).items() if name in own or not name.startswith(spare)}
    differences = compare(model, weights)
    told = [f"{len(names)} {what}, such as {names[0]}" for what, names in differences.items() if names]
    if told:
        raise UserError(
            f"{key}={str(path)!r}: its weights are of another model than this config's ({'; '.join(told)}); use the config it "
            "was made with, or start a training from its weights with checkpoint.pretrained"
        )
    model.load_state_dict(weights, strict=False)


def load_pretrained(path: Path, model: nn.Module, heads: Iterable[str], key: str) -> None:
    """The weights that a training starts from, named by `key`; what does not fit is told.

    `heads`, which the task needs, may be missing in the file, and others be there.
    """
    needed = [f"heads.{name}." for name in heads]
    load_reported(model, read_model(path), f"{key}={path}", needed, expected_unused=["heads."])


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
    metadata: dict[str, Any],
    model: nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    precision: Precision,
    key: str,
) -> TrainState:
    """Optimizers, loss scale and position of a verified checkpoint, whatever the processes and precision it was saved on."""
    parameters = precision.optimized(model)
    try:
        stored = {name: kind for name, kind in tensor_index.sizes(path).items() if name.startswith(OPTIMIZER)}
        places = {where: tuple(where.removeprefix(OPTIMIZER).split("/")) for where in stored}
        unknown = {name for group, name, _ in places.values() if name not in parameters or group not in optimizers}
    except ValueError as error:
        raise UserError(f"checkpoint {str(path)!r} cannot be read: {one_line(error)}") from error
    if (
        rules(optimizers) != metadata.get("optimizers")
        or unknown
        or not {group for group, _, _ in places.values()} <= set(optimizers)
    ):
        found = metadata.get("optimizers")
        what = f"parameters such as {min(unknown)}" if unknown else f"optimizers {found}, not {rules(optimizers)}"
        raise UserError(
            f"{key}={str(path)!r}: was saved with {what}; resume with the config it was made with, or take its weights with "
            "checkpoint.pretrained"
        )
    tensors = {}
    for where, (size, dtype) in stored.items():
        parameter = parameters[places[where][1]].detach()
        is_like = size == parameter.shape  # then it is sharded as the parameter is
        tensors[where] = torch.zeros_like(parameter, dtype=dtype) if is_like else torch.zeros(size, dtype=dtype)
    with reading(path):
        tensor_store.read(tensors, path)
    states: dict[tuple[str, str], dict[str, Tensor]] = {}
    for where, value in tensors.items():
        group, name, kind = places[where]
        states.setdefault((group, name), {})[kind] = value
    try:
        for (group, name), state in states.items():
            set_parameter_state(optimizers[group], parameters[name], state)
        precision.load_state_dict(metadata.get("precision", {}).get("state", {}))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{key}={str(path)!r}: its optimizers or its precision cannot be read ({one_line(error)})") from error
    return TrainState.read(metadata)
