"""The checkpoint that a run starts from, goes on from, evaluates or exports, as its configuration names it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints, TrainState
from pixelbert_plugin.config.options import CheckpointConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.registry.schema import Component, ConfigError

PRETRAINED = "checkpoint.pretrained"


@dataclass(frozen=True)
class Start:
    """A checkpoint with the config key that named it; without one, a run starts from random weights."""

    path: Path | None = None
    key: str = ""
    content: dict[str, Any] = field(default_factory=dict)  # what it says beside its tensors

    @classmethod
    def read(cls, path: Path | None, key: str) -> "Start":
        """Verify the checkpoint and read what it says. Raises UserError."""
        return cls() if path is None else cls(path, key, restore.read_content(path, key))

    @classmethod
    def chosen(cls, path: Path | None, key: str, model: Component, image: Component) -> "Start":
        """As `read`, for this model and image processor. Raises UserError where the checkpoint is of others."""
        start = cls.read(path, key)
        start.require_options(model, image)
        return start

    @property
    def is_pretrained(self) -> bool:
        """Whether a training takes its weights and no more."""
        return self.path is not None and self.key == PRETRAINED

    @property
    def is_resumed(self) -> bool:
        """Whether a training goes on where this checkpoint was."""
        return self.path is not None and self.key != PRETRAINED

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Where the weights of a training come from, for its checkpoints: each source since random weights, the latest last."""
        former = self.content.get("started_from", [])
        if self.path is None or self.key == "checkpoint.resume":  # its own checkpoint
            return former
        return [*former, {"key": self.key, "path": str(self.path), "update": self.content["state"]["update"]}]

    def require_options(self, model: Component, image: Component) -> None:
        """Raise ConfigError where the model or its images are not those that a file of others is of, though names and shapes
        may fit."""
        sections: tuple[tuple[str, str, Any], ...] = (
            ("model_options", f"model_config.{model.type}", model.params),
            ("image_options", "processors.image.params", image.params),
        )
        for section, path, options in sections:
            for key, wanted in self.content.get(section, {}).items():
                value = options
                for part in key.split("."):
                    value = getattr(value, part, None)
                if value != wanted:
                    raise ConfigError(
                        f"{path}.{key}",
                        f"{value}, but the network of {self} has {wanted}; set it so (docs/weights.md lists all that it needs)",
                    )

    def load_weights(self, model: nn.Module, heads: dict[str, int], is_training: bool) -> None:
        """Give the model the checkpoint's weights; pre-trained ones as far as a training on another task has use for them.

        An evaluation has no use for the heads of other tasks, such as MLM's. Raises UserError where others are missing.
        """
        if self.path is None:
            return
        if is_training and self.is_pretrained:
            restore.load_pretrained(self.path, model, heads, self.key)
        else:
            restore.load_weights(self.path, model, self.key, spare=() if is_training else ("heads.",))

    def load_training(self, model: nn.Module, optimizers: dict[str, Optimizer], precision: Precision) -> TrainState:
        """Give the optimizers and the precision their states of the training that goes on. Returns its own: new where none
        does."""
        if self.path is None or self.is_pretrained:
            return TrainState()
        return restore.load_training(self.path, self.content, model, optimizers, precision, self.key)

    def __str__(self) -> str:
        return f"{self.key}={str(self.path)!r}"


def starting_checkpoint(paths: CheckpointConfig, checkpoints: Checkpoints) -> tuple[Path | None, str]:
    """The checkpoint that a training starts from, or goes on from, and the config key that named it."""
    if paths.resume_file is not None:
        if Path(paths.resume_file).is_file():
            raise ConfigError(
                "checkpoint.resume_file",
                f"{paths.resume_file!r} is a file of weights; training goes on from a folder. Start from its weights "
                "with checkpoint.pretrained",
            )
        return Path(paths.resume_file), "checkpoint.resume_file"
    if paths.resume and (newest := checkpoints.newest()) is not None:
        return newest, "checkpoint.resume"
    return (Path(paths.pretrained), PRETRAINED) if paths.pretrained else (None, "")


def evaluated_checkpoint(paths: CheckpointConfig, checkpoints: Checkpoints, is_pretrained_asked: bool) -> tuple[Path, str]:
    """As `finished_checkpoint`, for results that are written beside the run's."""
    if paths.resume_file is not None and not checkpoints.may_stand_for_run(Path(paths.resume_file)):
        raise ConfigError(
            "checkpoint.resume_file",
            f"{paths.resume_file!r}: {_save_dir(checkpoints)} holds a run, whose own results and predictions would be "
            "replaced; choose another env.save_dir for these",
        )
    return finished_checkpoint(paths, checkpoints, is_pretrained_asked)


def finished_checkpoint(paths: CheckpointConfig, checkpoints: Checkpoints, is_pretrained_asked: bool) -> tuple[Path, str]:
    """The checkpoint to evaluate or export, and the config key that named it.

    `checkpoint.pretrained` is what a training starts from: only where no run has trained here is it evaluated itself.
    `is_pretrained_asked`: whether the command line names one, rather than a file.
    """
    if paths.resume_file is not None:
        return Path(paths.resume_file), "checkpoint.resume_file"
    own = checkpoints.finished()
    if own is None and paths.pretrained is not None:
        return Path(paths.pretrained), PRETRAINED
    if own is None:
        raise UserError(
            f"{_save_dir(checkpoints)}: holds no checkpoint to evaluate; train first, or name one with "
            "checkpoint.resume_file=FOLDER"
        )
    if paths.pretrained is not None and is_pretrained_asked:
        raise ConfigError(
            PRETRAINED,
            f"{paths.pretrained!r}: {_save_dir(checkpoints)} holds a run that has trained on, to {own}; leave "
            "checkpoint.pretrained out to take that, or name the weights to take with checkpoint.resume_file",
        )
    return own, "env.save_dir"


def _save_dir(checkpoints: Checkpoints) -> str:
    """The key and value that say where the run of these checkpoints is."""
    return f"env.save_dir={str(checkpoints.folder.parent)!r}"
