"""A checkpoint's folder on the disk: the files in it, whether they are as they were written, and their deletion."""

import itertools
import json
import logging
import os
from pathlib import Path

from pixelbert_plugin.checkpoint import evaluated
from pixelbert_plugin.checkpoint.tensor_index import INDEX, is_tensor_file
from pixelbert_plugin.system.digest import digest_of

logger = logging.getLogger(__name__)

STATE, CONFIG, DIGESTS = "state.json", "config.yaml", "digests.json"
OWN = {STATE, CONFIG, DIGESTS, evaluated.NAME, INDEX, f"{INDEX}.tmp"}


def problem(path: Path) -> str | None:
    """Why a checkpoint folder cannot be trusted; None where it is whole. Nothing in it but the digests is interpreted."""
    if not os.path.isfile(path / DIGESTS):
        return f"{DIGESTS} is missing"
    try:
        digests = json.loads((path / DIGESTS).read_text(encoding="utf-8"))
        missing = {INDEX, STATE, CONFIG} - set(digests)
        if missing:
            return f"{DIGESTS} does not list {', '.join(sorted(missing))}"
        unlisted = {file.name for file in path.iterdir() if is_tensor_file(file.name)} - set(digests)
        if unlisted:
            return f"{DIGESTS} does not list {min(unlisted)}"
        gone = [name for name in digests if not os.path.isfile(path / Path(name).name)]  # a pipe would be waited for
        if gone:
            return f"{gone[0]} is missing"
        evaluated.read(path)
        altered = [name for name, digest in digests.items() if digest_of(path / Path(name).name) != digest]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{altered[0]} is not as it was written (SHA-256 differs)" if altered else None


def is_own(file: Path) -> bool:
    """Whether a checkpoint's folder has a file of this name."""
    return file.name in OWN or is_tensor_file(file.name)


def remove(folder: Path) -> None:
    """Delete a checkpoint's files, and its folder where nothing else lies in it."""
    if folder.is_dir() and not folder.is_symlink():
        for file in filter(is_own, list(folder.iterdir())):
            if file.is_symlink() or not file.is_dir():
                file.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def make_way(folder: Path) -> None:
    """Delete a checkpoint so that another can take its place; what else lies in its folder is kept under another name."""
    remove(folder)
    if os.path.lexists(folder):
        kept = next(path for n in itertools.count(1) if not os.path.lexists(path := folder.with_name(f"{folder.name}.kept{n}")))
        folder.rename(kept)
        logger.warning("%s is not a checkpoint of this program alone: it was renamed to %s", folder, kept.name)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
