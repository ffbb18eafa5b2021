"""Hugging Face's hub: whether it can be reached at all, since its client tries for half a minute before it gives up; and files
of `pixelbert-run --export` that are published there."""

import os
import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pixelbert_plugin.checkpoint.weights import one_line
from pixelbert_plugin.errors import UserError

SECONDS = 5  # to connect in
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # organisation/repository


@contextmanager
def asked() -> Iterator[None]:
    """Within it, what is asked of the hub comes from its cache alone where the hub cannot be reached."""
    from huggingface_hub import constants

    usual = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = usual or why_unreachable() is not None
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = usual


def reason(error: Exception) -> str:
    """Why something could not be had from the hub, for an error's line."""
    unreachable = why_unreachable()
    return f"{unreachable}, and its cache has none" if unreachable else one_line(error)


def why_unreachable() -> str | None:
    """None where the hub answers, or a proxy stands between."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if address.scheme in urllib.request.getproxies() or "all" in urllib.request.getproxies():
        return None
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=SECONDS).close()
    except OSError as error:
        return f"{address.hostname} cannot be reached ({error.strerror or error})"
    return None


def is_name(given: str | os.PathLike[str]) -> bool:
    """Whether it can be a repository's name; of a path, its folder is here."""
    return isinstance(given, str) and NAME.fullmatch(given) is not None and not os.path.isdir(os.path.dirname(given))


def repository(name: str, key: str) -> Path:
    """The folder of a repository's weights and what belongs to them, from the cache or fetched. Raises UserError with `key`,
    which named it."""
    from huggingface_hub import snapshot_download

    try:
        with asked():
            return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt"]))
    except Exception as error:  # its client's own, requests', the disk's
        raise UserError(
            f"{key}={name!r}: no such checkpoint folder and no exported file here, and not available from the hub "
            f"({reason(error)})"
        ) from error


def exported_file(folder: Path, name: str, key: str) -> Path:
    """The one .safetensors of a repository's folder. Raises UserError."""
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        names = f": {', '.join(path.name for path in found)}" if found else ""
        raise UserError(
            f"{key}={name!r}: the hub's repository holds {len(found)} .safetensors{names}; it must hold one, of pixelbert-run "
            "--export, or be a folder of its --format hf; or download the one that is meant and name the file"
        )
    return found[0]
