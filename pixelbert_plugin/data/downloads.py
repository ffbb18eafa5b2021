"""Official files, fetched and unpacked: what was fetched goes on where it stopped, and is checked before it is used.

A file is fetched into `DATA_DIR/.downloads/NAME.part`; NAME.part.json says which version of it that is, so that a part is only
gone on with where the server still has the same one. Archives are unpacked member by member, each written aside and renamed.
"""

import json
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from pixelbert_plugin.errors import UserError, replacing, writing
from pixelbert_plugin.registry.schema import nearest
from pixelbert_plugin.system.digest import digest_of
from pixelbert_plugin.system.foreign import what_else
from pixelbert_plugin.system.progress import NoProgress

FOLDER = ".downloads"  # in the data folder
PIECE = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds without an answer
TRIES = 5  # that bring nothing, one after the other, before it is given up
AGENT = "pixelbert-data"  # some servers refuse programs without a name


@dataclass(frozen=True)
class Source:
    """A published file."""

    url: str
    to: str | None = None  # where it goes, below the data folder; None: it is an archive
    unpack: dict[str, str] = field(default_factory=dict)  # of an archive: member → file, or folder/ → folder/
    bytes: int | None = None  # as published; None: as the server says
    sha256: str | None = None  # where one is published

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def targets(self) -> list[str]:
        """What it becomes, below the data folder."""
        return [self.to] if self.to is not None else list(self.unpack.values())


@dataclass(frozen=True)
class OnRequest:
    """What is given to those who ask."""

    what: str
    where: str  # to ask
    then: str  # what to do with it
    needs: str  # what is there afterwards, below the data folder


@dataclass(frozen=True)
class Published:
    """A data set's list of files."""

    files: list[Source]
    on_request: list[OnRequest] = field(default_factory=list)


def published(name: str, folder: Path) -> Published:
    """The list of a data set, of those in `folder`. Raises UserError for an unknown one."""
    known = {path.parent.name: path for path in sorted(folder.glob("*/downloads.yaml"))}
    if name not in known:
        raise UserError(f"download {name!r:.100}: no such data set{nearest(name, list(known))}")
    content = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    return Published(
        [Source(**entry) for entry in content["files"]], [OnRequest(**entry) for entry in content.get("on_request", [])]
    )


def is_done(source: Source, data_dir: Path) -> bool:
    """Whether it was fetched and unpacked before, and what it became is there."""
    if source.to is not None:
        return (data_dir / source.to).is_file()
    try:
        done = json.loads(_marker(source, data_dir).read_text(encoding="utf-8"))
        return all(target in done["targets"] and (data_dir / target).exists() for target in source.targets)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def get(source: Source, data_dir: Path, mirror: str | None, keep_archive: bool, progress: NoProgress) -> None:
    """Fetch a file, check it, and put it or what is in it where it belongs. Raises UserError."""
    folder = data_dir / FOLDER
    with writing(folder, "data_dir"):
        folder.mkdir(parents=True, exist_ok=True)
    part, url = _fetched(source, folder, mirror, progress), mirrored(source.url, mirror)
    _check(source, part, url)
    if source.to is not None:
        target = data_dir / source.to
        with writing(target, "data_dir"):
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
    else:
        _unpack(source, part, data_dir, url)
        with writing(folder, "data_dir"):
            _marker(source, data_dir).write_text(json.dumps({"url": source.url, "targets": source.targets}), encoding="utf-8")
            if keep_archive:
                part.replace(folder / source.name)
            else:
                part.unlink()
    _version(part).unlink(missing_ok=True)


def mirrored(url: str, mirror: str | None) -> str:
    """The URL below another server that has the same files: MIRROR/host/path."""
    if mirror is None:
        return url
    found = urlsplit(url)
    return f"{mirror.rstrip('/')}/{found.netloc}{found.path}"


def _marker(source: Source, data_dir: Path) -> Path:
    return data_dir / FOLDER / f"{source.name}.json"


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _fetched(source: Source, folder: Path, mirror: str | None, progress: NoProgress) -> Path:
    """The file, whole; one that is there in part is gone on with."""
    kept = folder / source.name
    if kept.is_file():
        return kept
    part, url = folder / f"{source.name}.part", mirrored(source.url, mirror)
    failures, has_begun = 0, False
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            for total, held in _pieces(url, part, folder):
                if not has_begun:
                    progress.begin(total or source.bytes or held)
                    progress.advance(before)
                    has_begun, shown = True, before
                progress.advance(held - shown)
                shown = held
            return part
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise UserError(
                    f"{url}: the server says {error.code} {error.reason}; is it published elsewhere now?"
                ) from error
            reason = f"the server says {error.code} {error.reason}"
        except (OSError, HTTPException) as error:  # URLError, a reset, a timeout, an answer that breaks off
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        gained = (part.stat().st_size if part.is_file() else 0) > before
        failures = 0 if gained else failures + 1
        if failures == TRIES:
            raise UserError(f"{url}: cannot be fetched ({reason}); the same command goes on where it stopped")
        time.sleep(min(30, 2**failures - 1) * WAIT)


WAIT = 1.0  # factor on the seconds between tries


def _pieces(url: str, part: Path, folder: Path) -> Iterator[tuple[int | None, int]]:
    """Ask for what is missing, and add it to the part. Yields the size of the whole, if it is known, and how much is there."""
    held, version = (part.stat().st_size if part.is_file() else 0), _read_version(part)
    if held and version.get("total") == held:
        yield held, held
        return
    headers = {"User-Agent": AGENT}
    if held and version.get("validator"):
        headers |= {"Range": f"bytes={held}-", "If-Range": version["validator"]}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        goes_on = answer.status == 206
        if goes_on:
            first, _, size = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            goes_on = first.partition("-")[0] == str(held)
            total = int(size) if size.isdigit() else None
            if not goes_on:
                raise OSError("another part was sent than the one that was asked for")
        else:
            held, length = 0, answer.headers.get("Content-Length")
            total = int(length) if length is not None else None
        _require_space(folder, None if total is None else total - held)
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if validator is not None and validator.startswith("W/"):
            validator = answer.headers.get("Last-Modified")  # a weak tag is none for parts
        with writing(part, "data_dir"):
            _version(part).write_text(json.dumps({"validator": validator, "total": total}), encoding="utf-8")
            file = part.open("ab" if goes_on else "wb")
        with file:
            yield total, held
            while True:
                piece = answer.read(PIECE)
                if not piece:
                    break
                with writing(part, "data_dir"):
                    file.write(piece)
                held += len(piece)
                yield total, held
        if total is not None and held != total:
            raise OSError(f"the answer broke off after {held:,} of {total:,} bytes")


def _read_version(part: Path) -> dict[str, Any]:
    try:
        found = json.loads(_version(part).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _require_space(folder: Path, needed: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; free space, or set data_dir=PATH"
        )


def _check(source: Source, path: Path, url: str) -> None:
    """Raises UserError where the file is not the published one; it is deleted, so that the same command fetches it anew."""
    told = ""
    if source.sha256 is not None:
        found = digest_of(path)
        if found != source.sha256:
            told = f"its SHA-256 is {found}, published is {source.sha256}"
    elif source.to is None and not zipfile.is_zipfile(path):
        told = "is no zip archive"
    if told:
        told = what_else(path, but=(b"PK\x03\x04",)) or told
        path.unlink()
        _version(path).unlink(missing_ok=True)
        raise UserError(f"{url}: {told}; it was deleted, and the same command fetches it again")


def _unpack(source: Source, archive: Path, data_dir: Path, url: str) -> None:
    """What is asked for of a zip archive. Raises UserError where a member is missing, or the archive is damaged."""
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = list(_members(source, opened, url))
            size = sum(member.file_size for member, target in wanted if not _is_there(data_dir / target, member))
            _require_space(data_dir, size)
            for member, target in wanted:
                path = data_dir / target
                if _is_there(path, member):
                    continue
                with writing(path, "data_dir"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with replacing(path) as aside, opened.open(member) as content, aside.open("wb") as file:
                        shutil.copyfileobj(content, file, PIECE)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        archive.unlink()
        _version(archive).unlink(missing_ok=True)
        raise UserError(
            f"{url}: its archive is damaged ({error}); it was deleted, the same command fetches it again"
        ) from error


def _is_there(path: Path, member: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == member.file_size


def _members(source: Source, archive: zipfile.ZipFile, url: str) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Each wanted member, and where it goes below the data folder."""
    for inside, target in source.unpack.items():
        found = False
        for member in archive.infolist():
            name = member.filename
            is_wanted = name.startswith(inside) if inside.endswith("/") else name == inside or name.endswith(f"/{inside}")
            if member.is_dir() or not is_wanted or "__MACOSX" in name:
                continue
            rest = name[len(inside) :] if inside.endswith("/") else ""
            if ".." in PurePosixPath(rest).parts or PurePosixPath(rest).is_absolute():
                raise UserError(f"{url}: member {name!r} leads out of its folder; nothing more is unpacked")
            found = True
            yield member, f"{target}{rest}"
        if not found:
            raise UserError(f"{url}: its archive has no {inside!r}; is it published otherwise now?")
