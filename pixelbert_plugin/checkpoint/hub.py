"""Hugging Face's hub: whether it can be reached at all, since its client tries for half a minute before it gives up."""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pixelbert_plugin.checkpoint.weights import one_line

SECONDS = 5  # to connect in


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
