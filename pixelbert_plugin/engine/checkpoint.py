"""Checkpoints: folders of safetensors and JSON, written aside, synced, then renamed. Nothing in one is ever executed.

    checkpoints/update_000120/  model.safetensors  optimizer.safetensors  state.json  config.yaml  digests.json
    checkpoints/best → update_000120

`digests.json` is written last and holds the SHA-256 of every other file: a torn or altered checkpoint is recognised and
passed over for the one before it.
"""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pixelbert_plugin.errors import UserError, writing

logger = logging.getLogger(__name__)

MODEL, OPTIMIZER, STATE, CONFIG, DIGESTS = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "config.yaml",
    "digests.json",
)
PREFIX = "update_"


@dataclass
class TrainState:
    """Where training stands. Order, augmentation and dropout are functions of the seed and of this."""

    update: int = 0  # updates done
    samples: int = 0  # samples consumed
    seconds: float = 0.0  # training time, evaluations left out
    best: float | None = None  # the criterion's best value
    best_update: int | None = None  # the update it was reached at
    evaluations_since_best: int = 0
    metrics: dict[str, float] = field(default_factory=dict)  # of the latest evaluation
    skipped_images: dict[str, int] = field(default_factory=dict)  # why each was skipped, and how often


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, max_to_keep: int):
        self.folder = folder
        self.max_to_keep = max_to_keep

    def save(
        self,
        model: nn.Module,
        optimizers: dict[str, torch.optim.Optimizer],
        state: TrainState,
        config_yaml: str,
        processors: dict[str, dict[str, Any]],
        versions: dict[str, str],
    ) -> Path:
        """Write the checkpoint of `state.update`, link `best` to it where it is the best, prune old ones.

        Raises UserError where it cannot be written; the checkpoints before it stay.
        """
        target = self.folder / f"{PREFIX}{state.update:06d}"
        aside = self.folder / f".{target.name}.{os.getpid()}"
        with writing(target):
            try:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
                _save_tensors(model.state_dict(), aside / MODEL)
                tensors, numbers = optimizer_state(model, optimizers)
                _save_tensors(tensors, aside / OPTIMIZER)
                content = {
                    "state": asdict(state),
                    "optimizers": _kinds(optimizers),
                    "optimizer": numbers,
                    "processors": processors,
                    "versions": versions,
                }
                (aside / STATE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
                (aside / CONFIG).write_text(config_yaml, encoding="utf-8")
                digests = {path.name: _digest(path) for path in sorted(aside.iterdir())}
                (aside / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
                for path in [*aside.iterdir(), aside]:
                    _sync(path)
                if target.exists():  # left by an earlier life of this run, torn or not
                    shutil.rmtree(target)
                aside.rename(target)
                _sync(self.folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            self.link_best(state)
            self._prune(target)
        return target

    def best(self) -> Path | None:
        """The best checkpoint, if it is whole."""
        link = self.folder / "best"
        return link if link.exists() and problem(link) is None else None

    def newest(self) -> Path | None:
        """The newest whole checkpoint; torn or altered ones are named and passed over."""
        found = self._all()
        for path in reversed(found):
            reason = problem(path)
            if reason is None:
                return path
            logger.warning("checkpoint %s is refused: %s; trying the one before it", path, reason)
        if found:
            raise UserError(
                f"{self.folder}: none of its {len(found)} checkpoints is whole; "
                "start anew with env.overwrite=true or another env.save_dir"
            )
        return None

    def _all(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        found = [path for path in self.folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
        return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))

    def link_best(self, state: TrainState) -> None:
        """Point `best` to the checkpoint of `state.best_update`: again after a kill between its saving and its linking."""
        target = self.folder / f"{PREFIX}{state.best_update or 0:06d}"
        if target.is_dir() and (self.folder / "best").resolve() != target.resolve():
            aside = self.folder / ".best"
            aside.unlink(missing_ok=True)
            aside.symlink_to(target.name)
            os.replace(aside, self.folder / "best")  # atomic: `best` is always a whole checkpoint

    def later_than(self, update: int) -> list[Path]:
        """Checkpoints past `update`, which a run that starts there would mix with its own."""
        return [path for path in self._all() if int(path.name.removeprefix(PREFIX)) > update]

    def _prune(self, newest: Path) -> None:
        best = (self.folder / "best").resolve()
        for path in self._all()[: -self.max_to_keep]:
            if path.resolve() != best and path != newest:
                shutil.rmtree(path)
        for leftover in self.folder.glob(f".{PREFIX}*"):  # of a write that was killed
            shutil.rmtree(leftover, ignore_errors=True)


def problem(path: Path) -> str | None:
    """Why a checkpoint folder cannot be trusted; None where it is whole."""
    try:
        digests = json.loads((path / DIGESTS).read_text(encoding="utf-8"))
        missing = {MODEL, OPTIMIZER, STATE, CONFIG} - set(digests)
        if missing:
            return f"{DIGESTS} does not list {', '.join(sorted(missing))}"
        altered = [name for name, digest in digests.items() if _digest(path / name) != digest]
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{altered[0]} is not as it was written (SHA-256 differs)" if altered else None


def read_content(path: Path, key: str) -> dict[str, Any]:
    """state.json of a checkpoint that is verified first. Raises UserError naming what is wrong."""
    if not path.is_dir():
        raise UserError(f"{key}={str(path)!r}: no such checkpoint folder")
    reason = problem(path)
    if reason is not None:
        raise UserError(f"{key}={str(path)!r}: not a whole checkpoint: {reason}")
    return json.loads((path / STATE).read_text(encoding="utf-8"))


def read_model(path: Path) -> dict[str, Tensor]:
    return load_file(path / MODEL)


def load_training(path: Path, content: dict[str, Any], model: nn.Module, optimizers: dict[str, Any], key: str) -> TrainState:
    """Model, optimizers and position of a verified checkpoint."""
    try:
        model.load_state_dict(read_model(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{key}={str(path)!r}: its weights are of another model than this config's ({reason}); resume with the "
            "config it was made with, or take its weights with checkpoint.pretrained"
        ) from error
    kinds = _kinds(optimizers)
    tensors = load_file(path / OPTIMIZER)
    unknown = {where.split("/")[1] for where in tensors} - {name for name, _ in model.named_parameters()}
    if kinds != content.get("optimizers", kinds) or unknown:
        what = f"parameters such as {min(unknown)}" if unknown else f"optimizers {content['optimizers']}, not {kinds}"
        raise UserError(
            f"{key}={str(path)!r}: was saved with {what}; resume with the config it was made with, or take its weights with "
            "checkpoint.pretrained"
        )
    load_optimizer_state(model, optimizers, tensors, content["optimizer"])
    return TrainState(**content["state"])


def _kinds(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, str]:
    return {name: type(optimizer).__name__ for name, optimizer in optimizers.items()}


def optimizer_state(
    model: nn.Module, optimizers: dict[str, torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Each optimizer's state by parameter name: tensors and plain numbers apart."""
    tensors, numbers = {}, {}
    for name, parameter in model.named_parameters():
        for group, optimizer in optimizers.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                where = f"{group}/{name}/{key}"
                if isinstance(value, Tensor):
                    tensors[where] = value
                elif value is not None:
                    numbers[where] = value
    return tensors, numbers


def load_optimizer_state(
    model: nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    tensors: dict[str, Tensor],
    numbers: dict[str, float],
) -> None:
    parameters = dict(model.named_parameters())
    for where, value in {**tensors, **numbers}.items():
        group, name, key = where.split("/")
        parameter = parameters[name]
        if isinstance(value, Tensor) and value.ndim:  # step counts stay on the CPU, as torch keeps them
            value = value.to(parameter.device)
        optimizers[group].state[parameter][key] = value


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    # contiguous copies, since channels_last weights are strided; format "pt" is what transformers and others expect
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(content, path, {"format": "pt"})
    except SafetensorError as error:  # of a full disk, it says no more than its message
        raise OSError(str(error)) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
