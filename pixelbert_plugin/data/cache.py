"""A cache of arrays on disk, mapped into memory: `CACHE_DIR/<builder>-<hash>/*.npy` and a manifest of their digests.

The hash covers the builder's options and the source files' paths, sizes and times, so that a changed source makes another
folder; a folder may be deleted at any time. A folder is written aside and renamed, so that it is whole or not there, and
what is read is checked: a torn or altered one is made again, with a warning. What a killed process left aside is deleted by
the next one that writes: a writer holds a lock on its folder.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin.data.blocks import Arrays

logger = logging.getLogger(__name__)

FORMAT = 6  # of the arrays; raise it when a builder reads the same files differently
MANIFEST = "manifest.json"
ASIDE = re.compile(r"\..+-[0-9a-f]{16}-[0-9]+-[0-9a-f]{8}")  # how folders are named while they are written


def cached(cache_dir: Path | None, name: str, options: Any, sources: list[Path], make: Callable[[], Arrays]) -> Arrays:
    """What `make()` returns, from the cache where it has it. `options` (JSON) and `sources` are all that it depends on."""
    if cache_dir is None:
        return make()
    try:
        folder = cache_dir / f"{name}-{_fingerprint(options, sources)}"
    except OSError:  # a source is missing: `make` says so
        return make()
    try:
        return _load(folder)
    except FileNotFoundError:
        reason = "" if folder.is_dir() else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f": {error}"
    if reason is not None:
        logger.warning("%s: not as it was written%s; reading the official files again", folder, reason)
    arrays = make()
    try:
        return _save(folder, arrays)
    except OSError as error:
        logger.warning("%s: cannot be written (%s); going on without a cache", folder, error.strerror or error)
        return arrays


def _fingerprint(options: Any, sources: list[Path]) -> str:
    files = []
    for path in sources:
        stat = path.stat()
        files.append((str(path.resolve()), stat.st_size, stat.st_mtime_ns))
    content = json.dumps([FORMAT, options, files], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _load(folder: Path) -> Arrays:
    """Raises FileNotFoundError where a file is missing, ValueError and such where one is not as it was written."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = manifest["files"]
    if manifest["digest"] != _manifest_digest(files):
        raise ValueError(f"{MANIFEST} is altered")
    for name, (size, digest) in files.items():
        path = folder / f"{name}.npy"
        if path.stat().st_size != size or _digest(path) != digest:
            raise ValueError(f"{path.name} is torn or altered")
    return _map(folder, list(files))


def _map(folder: Path, names: list[str]) -> Arrays:
    # a plain view of each memory map: slicing np.memmap itself is slow
    return {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in names}


def _save(folder: Path, arrays: Arrays) -> Arrays:
    """Write aside, map, rename: another process may put or replace the same folder at the same time."""
    with _aside(folder) as aside:
        files = {}
        for name, values in arrays.items():
            path = aside / f"{name}.npy"
            np.save(path, values, allow_pickle=False)
            files[name] = [path.stat().st_size, _digest(path)]
        manifest = {"files": files, "digest": _manifest_digest(files)}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        mapped = _map(aside, list(arrays))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
        return mapped


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, locked, and deleted in the end unless it was renamed; orphans are deleted before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for orphan in folder.parent.glob(".*"):
        if ASIDE.fullmatch(orphan.name):
            _delete_unlocked(orphan)
    aside = folder.with_name(f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
    aside.mkdir()
    lock = os.open(aside, os.O_RDONLY)
    try:
        _lock(lock)
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


def _delete_unlocked(folder: Path) -> None:
    """Delete what a killed process left: nobody holds its lock."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if _lock(descriptor):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether it could be had; never where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _manifest_digest(files: dict[str, list[Any]]) -> str:
    return hashlib.blake2b(json.dumps(files, sort_keys=True).encode(), digest_size=16).hexdigest()
