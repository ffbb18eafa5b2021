"""Logs of one JSON record a line, each with the `update` it is of. A line is written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import replacing


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a record. Raises OSError where it cannot be written; then nothing of it is left."""
    line = f"{json.dumps(record)}\n".encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            done = 0
            while done < len(line):  # a disk that is nearly full takes a part
                done += os.write(descriptor, line[done:])
        except BaseException:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def cut(path: Path, last_update: int) -> None:
    """Keep the records up to `last_update`; what a kill or an editor left that is none is dropped."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() and last_update else []
    kept = [line for line in lines if (update := _update(line)) is not None and update <= last_update]
    with replacing(path) as aside:
        aside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _update(line: str) -> int | None:
    """The update of a record; None where the line is none."""
    try:
        update = json.loads(line)["update"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return update if isinstance(update, int) else None
