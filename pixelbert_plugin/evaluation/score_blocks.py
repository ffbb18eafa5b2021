"""Finished blocks of a score matrix on the disk, each with a digest, so that a killed evaluation goes on where it was."""

import contextlib
import fcntl
import hashlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixelbert_plugin.errors import replacing

logger = logging.getLogger(__name__)
DIGEST = 32  # bytes of a SHA-256
NAMED = 16  # characters of the fingerprint in a file's name
LOCK = ".block_lock"


class BlockStore:
    """`block_<fingerprint>_00012.npy`: NumPy's file, then the block's key, then the digest of both.

    `fingerprint`: of what all scores depend on. `keys`: by number, of what each block's depend on beside it. A block is used
    for its own fingerprint and key only, so that several evaluations may keep theirs in one folder at once.
    """

    def __init__(self, folder: Path, fingerprint: str, keys: list[bytes]):
        self.folder, self.fingerprint, self.keys = folder, fingerprint, keys
        self._is_failure_told = False

    @contextlib.contextmanager
    def owned(self, is_main: bool) -> Iterator[None]:
        """While this lasts, no other evaluation deletes these blocks; others' are deleted where nobody uses the folder now."""
        lock = None
        if is_main:
            with self._or_without():
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        if lock is not None:
            with contextlib.suppress(OSError):  # held by another evaluation, or a file system without locks
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._delete_others()
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)

    @contextlib.contextmanager
    def _or_without(self) -> Iterator[None]:
        """A full disk costs what is kept for a restart, not the evaluation."""
        try:
            yield
        except OSError as error:
            if not self._is_failure_told:
                told = "%s: cannot be written (%s); a killed evaluation will score again what could not be kept"
                logger.warning(told, self.folder, error.strerror or error)
            self._is_failure_told = True

    def _delete_others(self) -> None:
        """Blocks of other weights or options, of earlier versions, and what a kill left half written."""
        kept = f"block_{self.fingerprint[:NAMED]}_"
        for path in [*self.folder.glob("block_*.npy"), *self.folder.glob(".block_*"), self.folder / "fingerprint"]:
            if path.name != LOCK and not path.name.startswith(kept):
                path.unlink(missing_ok=True)

    def load(self, number: int, rows: int, columns: int) -> np.ndarray | None:
        """A finished block; None where there is none, or one that is not as it was written, which is said."""
        path = self._path(number)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s: %s; it is scored again", path, error.strerror or error)
            return None
        signed, digest = content[:-DIGEST], content[-DIGEST:]
        if hashlib.sha256(signed).digest() != digest:
            logger.warning("%s is not as it was written; it is scored again", path)
            return None
        if signed[-DIGEST:] != self._key(number):
            logger.warning("%s: its images have changed since; it is scored again", path)
            return None
        scores = np.load(io.BytesIO(signed), allow_pickle=False)
        return scores if scores.shape == (rows, columns) and scores.dtype == np.float32 else None

    def save(self, number: int, scores: np.ndarray) -> None:
        """Keep a block, where the disk has room for it."""
        buffer = io.BytesIO()
        np.save(buffer, scores)
        signed = buffer.getvalue() + self._key(number)
        path = self._path(number)
        with self._or_without(), replacing(path) as aside:
            aside.write_bytes(signed + hashlib.sha256(signed).digest())

    def _key(self, number: int) -> bytes:
        """Also of the whole fingerprint and the number: a file under another's name is not used."""
        return hashlib.sha256(f"{self.fingerprint} {number} ".encode() + self.keys[number]).digest()

    def _path(self, number: int) -> Path:
        return self.folder / f"block_{self.fingerprint[:NAMED]}_{number:05d}.npy"
