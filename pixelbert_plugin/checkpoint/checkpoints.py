"""Checkpoints: folders written aside by all processes, synced, then renamed. Nothing in one is ever executed.

    checkpoints/update_000120/  __0_0.safetensors … .metadata   weights and optimizers, by torch.distributed.checkpoint
                                state.json  config.yaml  digests.json  evaluated.json
    checkpoints/best → update_000120

`digests.json` is written last and holds the SHA-256 of every other file: a torn or altered checkpoint is recognised before
anything in it is read, and passed over for the one before it. `evaluated.json` comes later, see evaluated.py.
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_plugin.checkpoint import evaluated, tensor_store
from pixelbert_plugin.checkpoint.background import Background
from pixelbert_plugin.checkpoint.folder import CONFIG, DIGESTS, STATE, is_own, make_way, problem, remove, sync
from pixelbert_plugin.distributed.parallel import share_buffers
from pixelbert_plugin.distributed.processes import ALONE, Processes
from pixelbert_plugin.errors import RunError, UserError, writing
from pixelbert_plugin.optim.optimizer_state import parameter_state, rule
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.system.digest import digest_of

logger = logging.getLogger(__name__)

PREFIX = "update_"
MODEL, OPTIMIZER = "model/", "optimizer/"  # prefixes of the tensors' names


@dataclass
class TrainState:
    """Where training stands. Order, augmentation and dropout are functions of the seed and of this."""

    update: int = 0  # updates done
    samples: int = 0  # samples consumed, by all processes
    position: int | None = None  # place in the data: `samples`, unless the data changed on the way (length.py). None: `samples`
    epoch_samples: int | None = None  # of an epoch, which `position` counts by. None: saved before that was kept
    seconds: float = 0.0  # training time, evaluations left out
    best: float | None = None  # the monitored metric's best value
    best_update: int | None = None  # the update it was reached at
    evaluations_since_best: int = 0
    is_evaluation_due: bool = False  # of this update, which is saved before it is evaluated
    metrics: dict[str, float] = field(default_factory=dict)  # of the latest evaluation
    skipped_images: dict[str, int] = field(default_factory=dict)  # why each was skipped, and how often

    def forget_best(self) -> None:
        """Let the next evaluation be the best one."""
        self.best, self.best_update, self.evaluations_since_best = None, None, 0

    def note_best(self, value: float, minimize: bool) -> None:
        """Whether the monitored metric's latest value is the best yet."""
        is_better = self.best is None or (value < self.best if minimize else value > self.best)
        if is_better and not math.isnan(value):
            self.best, self.best_update, self.evaluations_since_best = value, self.update, 0
        else:
            self.evaluations_since_best += 1

    @classmethod
    def read(cls, content: dict[str, Any]) -> "TrainState":
        """From a checkpoint's state.json. Raises KeyError, TypeError or ValueError where it is not one."""
        state = cls(**content["state"])
        for name in ("update", "samples", "evaluations_since_best"):
            if type(getattr(state, name)) is not int:
                raise ValueError(f"state.{name} is {getattr(state, name)!r}, not a whole number")
        for name, least in (("position", 0), ("epoch_samples", 1)):
            value = getattr(state, name)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"state.{name} is {value!r}, not a whole number from {least}")
        if type(state.is_evaluation_due) is not bool:
            raise ValueError(f"state.is_evaluation_due is {state.is_evaluation_due!r}, not true or false")
        if not isinstance(state.seconds, int | float) or not isinstance(state.skipped_images, dict):
            raise ValueError("state.seconds or state.skipped_images is of another type")
        return state


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says beside weights and position."""

    config_yaml: str  # of the run, without what was asked of it once
    processors: dict[str, dict[str, Any]]  # vocabulary, sizes, answers: what a new image or text needs
    versions: dict[str, str]
    started_from: list[dict[str, Any]] = field(default_factory=list)  # where its weights come from, the latest last. []: random
    data: dict[str, Any] = field(default_factory=dict)  # fingerprints of the data sets, by "split/dataset"
    portable: dict[str, dict[str, Any]] = field(default_factory=dict)  # options that build model and processors from it


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, max_to_keep: int, processes: Processes = ALONE):
        self.folder, self.max_to_keep, self.processes = folder, max_to_keep, processes
        self._background: Background | None = None

    @contextmanager
    def beside_training(self) -> Iterator[None]:
        """While this lasts, `save` only copies the tensors; at its end all that was saved lies on the disk.

        In every process. Raises the UserError of a write that failed; where something else ended the training, that is logged.
        """
        self._background = Background(self.processes)
        try:
            yield
        except BaseException:
            try:
                self.settle()
            except RunError as error:
                logger.error("%s", error)
            raise
        else:
            self.settle()
        finally:
            self._background.close()
            self._background = None

    def settle(self) -> None:
        """Wait until what was saved lies on the disk. Raises UserError, in every process, where it could not be written."""
        if self._background is not None:
            self._background.wait()

    def save(
        self,
        model: nn.Module,
        optimizers: dict[str, torch.optim.Optimizer],
        precision: Precision,
        state: TrainState,
        metadata: CheckpointMetadata,
    ) -> Path:
        """Write the checkpoint of `state.update`, link `best` to it where it is the best, prune old ones.

        Called in every process; each writes its part. Raises UserError where it cannot be written; those before it stay.
        `beside_training` it is written later, after the one before it; its error is raised by `settle`, or by the next `save`.
        """
        target = self.folder / f"{PREFIX}{state.update:06d}"
        share_buffers(model, self.processes)
        tensors = saved_weights(model, precision) | saved_optimizers(model, optimizers, precision)
        content = {
            "state": asdict(state),
            "optimizers": rules(optimizers),
            "precision": {"used": precision.description, "state": precision.state_dict()},
            "processors": metadata.processors,
            "versions": metadata.versions,
            "started_from": metadata.started_from,
            "data": metadata.data,
            "portable": metadata.portable,
        }
        rest = (replace(state), content, metadata.config_yaml)
        if self._background is None:
            self._write(target, tensors, *rest, self.processes)
        else:
            copied = self._background.copy(tensors)
            self._background.start(partial(self._write, target, copied, *rest, self._background.processes))
        return target

    def _write(
        self,
        target: Path,
        tensors: dict[str, Tensor],
        state: TrainState,
        content: dict[str, Any],
        config_yaml: str,
        processes: Processes,
    ) -> None:
        aside = self.folder / f".{target.name}.partial"
        processes.on_main(lambda: _start(aside, target))
        try:
            with writing(target):
                tensor_store.write(tensors, aside, processes.group)
        except UserError as error:  # in every process
            processes.on_main(lambda: shutil.rmtree(aside, ignore_errors=True))
            error.is_told = not processes.is_main
            raise
        processes.on_main(lambda: self._finish(aside, target, state, content, config_yaml))

    def _finish(self, aside: Path, target: Path, state: TrainState, content: dict[str, Any], config_yaml: str) -> None:
        with writing(target):
            try:
                (aside / STATE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
                (aside / CONFIG).write_text(config_yaml, encoding="utf-8")
                digests = {path.name: digest_of(path) for path in sorted(aside.iterdir())}
                (aside / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
                for path in [*aside.iterdir(), aside]:
                    sync(path)
                make_way(target)  # where an earlier life of this run left one, torn or not
                aside.rename(target)
                sync(self.folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            self.link_best(state)
            self._prune(target)

    def record(self, state: TrainState) -> None:
        """Note beside the checkpoint of `state.update` what its evaluation came to, and link `best`. In every process."""

        def write() -> None:
            folder = self.folder / f"{PREFIX}{state.update:06d}"
            with writing(folder):
                evaluated.write(folder, asdict(state))
                self.link_best(state)

        self.processes.on_main(write)

    def best(self) -> Path | None:
        """The best checkpoint, None where none was linked. Raises UserError where it is not whole."""
        link = self.folder / "best"
        return self._whole(link) if os.path.lexists(link) else None

    def finished(self) -> Path | None:
        """What the run has come to: its best checkpoint, or its newest one where nothing chose a best; None without any.

        Raises UserError where that one is not whole: another in its place would be a wrong result.
        """
        if (best := self.best()) is not None:
            return best
        if not (found := self._all()):
            return None
        newest = self._whole(found[-1])
        try:  # a copy may have lost the link
            content = json.loads((newest / STATE).read_text(encoding="utf-8"))
            content["state"] |= evaluated.read(newest)
            chosen = TrainState.read(content).best_update
        except (ValueError, TypeError, KeyError):
            chosen = None  # who reads it tells what is wrong with it
        return newest if chosen is None else self.of(chosen)

    def of(self, update: int) -> Path:
        """The checkpoint of an update. Raises UserError where it is not whole."""
        return self._whole(self.folder / f"{PREFIX}{update:06d}")

    def may_stand_for_run(self, path: Path) -> bool:
        """Whether `path` is the checkpoint that the run's results are of, or there is no run here."""
        link, found = self.folder / "best", self._all()
        return not found or path.resolve() == (link if os.path.lexists(link) else found[-1]).resolve()

    def holds_best(self, state: TrainState) -> bool:
        """Whether the best checkpoint, as `state` has it, is here and whole; else it is named."""
        if state.best_update is None:
            return True
        path = self.folder / f"{PREFIX}{state.best_update:06d}"
        reason = problem(path) if path.exists() else "no such folder"
        if reason is not None:
            logger.warning("checkpoint %s, the best one until now, is invalid: %s; the best is chosen anew", path, reason)
        return reason is None

    def _whole(self, path: Path) -> Path:
        if (reason := problem(path)) is not None:
            others = [other for other in self._all() if other.resolve() != path.resolve()]
            names = f" (there is {', '.join(map(str, others))})" if others else ""
            raise UserError(
                f"{path}: not a whole checkpoint: {reason}; restore it, or name another with checkpoint.resume_file{names}"
            )
        return path

    def newest(self) -> Path | None:
        """The newest whole checkpoint; torn or altered ones are named and passed over."""
        found = self._all()
        for path in reversed(found):
            reason = problem(path)
            if reason is None:
                return path
            logger.warning("checkpoint %s is invalid: %s; trying the one before it", path, reason)
        if found:
            raise UserError(
                f"{self.folder}: none of its {len(found)} checkpoints is whole; "
                "start anew with env.overwrite=true or another env.save_dir"
            )
        return None

    def _all(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        named = [path for path in self.folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
        found = [path for path in named if path.is_dir() and any(map(is_own, path.iterdir()))]
        return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))

    def link_best(self, state: TrainState) -> None:
        """Point `best` to the checkpoint of `state.best_update`: again after a kill between its saving and its linking."""
        target = self.folder / f"{PREFIX}{state.best_update or 0:06d}"
        best = self.folder / "best"
        if target.is_dir() and best.resolve() != target.resolve():
            if best.is_dir() and not best.is_symlink():  # a copy of the run has a folder for the link
                make_way(best)
            aside = self.folder / ".best"
            aside.unlink(missing_ok=True)
            aside.symlink_to(target.name)
            os.replace(aside, best)  # atomic: `best` is always a whole checkpoint

    def clear(self) -> None:
        """Delete a former run's checkpoints, and nothing else that lies beside or in them."""
        best = self.folder / "best"
        for path in [*self._all(), *self.folder.glob(f".{PREFIX}*.partial"), best]:
            if not path.is_symlink():
                remove(path)
        for link in (best, self.folder / ".best"):
            if link.is_symlink():
                link.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def later_than(self, update: int) -> list[Path]:
        """Checkpoints past `update`, which a run that starts there would mix with its own."""
        return [path for path in self._all() if int(path.name.removeprefix(PREFIX)) > update]

    def _prune(self, newest: Path) -> None:
        best = (self.folder / "best").resolve()
        for path in self._all()[: -self.max_to_keep]:
            if path.resolve() != best and path != newest:
                remove(path)
        for leftover in self.folder.glob(f".{PREFIX}*"):  # of a write that was killed
            shutil.rmtree(leftover, ignore_errors=True)


def saved_weights(model: nn.Module, precision: Precision) -> dict[str, Tensor]:
    """The model's state in float32: master weights where a precision keeps them, so that any other can go on from it."""
    masters = precision.optimized(model)
    values = {name: masters.get(name, value).detach() for name, value in model.state_dict().items()}
    return {f"{MODEL}{name}": value.float() if value.is_floating_point() else value for name, value in values.items()}


def saved_optimizers(model: nn.Module, optimizers: dict[str, torch.optim.Optimizer], precision: Precision) -> dict[str, Tensor]:
    """Each optimizer's state as optimizer/<group>/<parameter>/<kind>."""
    tensors = {}
    held = {id(p): group for group, optimizer in optimizers.items() for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in precision.optimized(model).items():
        group = held.get(id(parameter))
        for kind, value in parameter_state(optimizers[group], parameter).items() if group else ():
            tensors[f"{OPTIMIZER}{group}/{name}/{kind}"] = torch.as_tensor(value)
    return tensors


def rules(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, str]:
    """By group, the rule of its optimizer: another implementation of the same rule can go on from its state."""
    return {name: rule(optimizer) for name, optimizer in optimizers.items()}


def _start(aside: Path, target: Path) -> None:
    with writing(target):
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)  # not its parents: a run's folder that was moved away is not made anew
        aside.mkdir()
