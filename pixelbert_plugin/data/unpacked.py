"""Images that are no files below a folder become files: bytes of a table, and what URLs lead to.

`FOLDER/<2 characters>/<digest>`, named by a digest of the content, or of the URL. A file is written aside and renamed, so that
it is whole or not there; what is there is not written or fetched again. Any of it may be deleted at any time.
"""

import base64
import binascii
import errno
import hashlib
import logging
import re
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

from pixelbert_plugin.errors import UserError, replacing, writing

logger = logging.getLogger(__name__)
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
LOCAL = ("file", "local")  # protocols that lead to this machine's files
MAX_BYTES = 1 << 28  # of a fetched file
EXTRA = "pip install 'pixelbert_plugin[table]'"  # has what http needs
THREADS = 16  # files that are fetched at once


class Unpacked:
    """The folder; `key`: the config key that moves it."""

    def __init__(self, folder: Path, key: str = "env.cache_dir"):
        self.folder, self.key = folder, key

    def write(self, content: bytes) -> Path:
        """The file of an image's content, which is written unless it is there."""
        path = self.place(name_of(content))
        with writing(path, self.key):
            is_there = path.is_file() and path.stat().st_size == len(content)
        if not is_there:
            self._put(path, content)
        return path

    def _put(self, path: Path, content: bytes) -> None:
        with writing(path, self.key):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as aside:
                aside.write_bytes(content)

    def of_url(self, url: str) -> Path:
        """Where `fetch` puts what the URL leads to."""
        return self.place(name_of(url.encode(errors="surrogatepass")))

    def fetch(self, urls: Iterable[str]) -> dict[str, str]:
        """Get what is not there yet. Returns the URLs that failed, and why, in a line each."""
        missing = [url for url in dict.fromkeys(urls) if not self.of_url(url).is_file()]
        if not missing:
            return {}
        read = _reader()
        logger.info("fetching %d images into %s", len(missing), self.folder)
        with writing(self.folder, self.key):
            self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(THREADS) as pool:
            reasons = pool.map(lambda url: self._fetch(url, read), missing)
            return {url: reason for url, reason in zip(missing, reasons, strict=True) if reason}

    def _fetch(self, url: str, read: Callable[[str], bytes]) -> str:
        path = self.of_url(url)
        try:
            content = read(url)
        except ImportError as error:
            raise UserError(f"{url:.200}: this protocol needs another package ({error}); {EXTRA}, or install it") from error
        except Exception as error:  # of a protocol's package, its server, or the way there
            return _reason(error)
        if len(content) > MAX_BYTES:
            return f"more than {MAX_BYTES >> 20} MB"
        self._put(path, content)
        return ""

    def place(self, name: str) -> Path:
        """The file of an image by its name."""
        return self.folder / name[:2] / name


def _reader() -> Callable[[str], bytes]:
    import fsspec

    def read(url: str) -> bytes:
        with fsspec.open(url, "rb") as file:
            return file.read(MAX_BYTES + 1)

    return read


def _reason(error: BaseException | None) -> str:
    """Why a URL cannot be read, in a line: fsspec says FileNotFoundError of all that goes wrong on http, for a reason."""
    first, found = error, []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    for each in found:
        status = getattr(each, "status", None)
        if isinstance(status, int):
            phrase = f" ({HTTPStatus(status).phrase})" if status in HTTPStatus._value2member_map_ else ""
            return f"the server answers {status}{phrase}"
        if getattr(each, "errno", None) == errno.ECONNREFUSED:
            return "the connection is refused: no server is there"
        if isinstance(each, socket.gaierror):
            return "there is no host of this name"
    if isinstance(first, FileNotFoundError):
        return "no such file"
    return f"{type(found[-1]).__name__}: {found[-1]}".splitlines()[0][:300]


def name_of(content: bytes) -> str:
    """A digest, 32 characters."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def of_data_url(text: str) -> bytes | None:
    """The content of data:image/png;base64,…; None where the text is none. Raises ValueError where it is broken."""
    found = DATA_URL.match(text)
    if found is None:
        return None
    try:
        return base64.b64decode(text[found.end() :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"broken base64 ({error})") from error


def leads_here(url: str) -> bool:
    """Whether a URL may lead to files of this machine, by its protocol or a chain of them."""
    return "::" in url or url.partition("://")[0].lower() in LOCAL


def require_folder(cache_dir: Path | None, key: str) -> Unpacked:
    """The place of unpacked images. Raises UserError where there is no cache."""
    if cache_dir is None:
        raise UserError(f"{key}: the table has images in it, or URLs, which must be unpacked to a folder; set env.cache_dir")
    return Unpacked(cache_dir / "table_images")
