"""What the commands share that ask a trained model: their keys, the model, and a folder of images."""

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel
    from pixelbert_plugin.asking.options import PredictConfig
    from pixelbert_plugin.asking.search import Gallery, SearchQuestion
    from pixelbert_plugin.demo.options import DemoConfig
    from pixelbert_plugin.system.progress import NoProgress

C = TypeVar("C")


def configured(kind: type[C], arguments: argparse.Namespace) -> C:
    """The command's own configuration from its key=value. Raises UserError."""
    from pixelbert_plugin.commands.command import split_optional_config
    from pixelbert_plugin.config.files import command_line
    from pixelbert_plugin.registry.schema import ConfigError, merge

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    _, options = split_optional_config([option for option in arguments.options if not option.startswith("config=")], "")
    if len(options) < len(arguments.options):
        raise ConfigError("config", "unknown key; the checkpoint has its configuration: checkpoint=PATH")
    return merge(kind, command_line(options))


def loaded(config: "PredictConfig | DemoConfig") -> "LoadedModel":
    """The model that `checkpoint` names, or else the package's own, for inference alone."""
    import torch

    from pixelbert_plugin.config.shipped import trained
    from pixelbert_plugin.loading import load_named

    path: str | Path = config.checkpoint
    if not path:
        path = trained().checkpoint
        print(f"no checkpoint= is given: this is {trained().name}, which comes with the package", file=sys.stderr)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_named("checkpoint", path, device=device, user_dir=config.user_dir, fast=True, precision=config.precision)


def read_gallery(question: "SearchQuestion", folder: str, batch_size: int) -> "Gallery":
    """The folder's images, encoded; those that are left out are told."""
    with progress("reading images") as question.progress:
        gallery = question.gallery(folder, batch_size)
    for each in gallery.unreadable:
        print(f"left out: {each.reason}", file=sys.stderr)
    return gallery


def progress(what: str) -> "NoProgress":
    from rich.console import Console

    from pixelbert_plugin.system.progress import TimeLeft

    return TimeLeft(Console(stderr=True), what, has_bar=True)
