"""`pixelbert-data download NAME`: the official files of a data set, from where they are published."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from pixelbert_plugin.config.files import PACKAGE
from pixelbert_plugin.data import downloads
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import FilePath, nearest
from pixelbert_plugin.system.progress import TimeLeft


@dataclass(kw_only=True)
class DownloadConfig:
    data_dir: FilePath = "data"  # the folder that serves as env.data_dir
    only: list[str] = field(default_factory=list)  # the names of the files that are fetched, as list=true shows them. []: all
    list: bool = False  # show what is published and what is there, and fetch nothing
    keep_archives: bool = False  # leave archives in DATA_DIR/.downloads once they are unpacked
    mirror: str | None = None  # another server that has the files as MIRROR/HOST/PATH. None: where they are published


def download(name: str, own: DownloadConfig) -> str:
    """Fetch what is not there yet. Returns what is there, and what has to be asked for. Raises UserError."""
    folder = PACKAGE / "datasets"
    found = downloads.published(name, folder if folder.is_dir() else PACKAGE.parent / "datasets")
    names = [source.name for source in found.files]
    for wanted in own.only:
        if wanted not in names:
            raise UserError(f"only: {wanted!r}: {name} has no such file{nearest(wanted, names)}")
    data_dir = Path(own.data_dir)
    lines = []
    for source in found.files:
        if own.only and source.name not in own.only:
            continue
        targets = ", ".join(source.targets)
        if downloads.is_done(source, data_dir):
            lines.append(f"there       {targets}")
            continue
        if own.list:
            size = "" if source.bytes is None else f", {source.bytes / 1e6:,.0f} MB"
            lines.append(f"published   {source.name}: {source.url}{size} → {targets}")
            continue
        with TimeLeft(Console(stderr=True), source.name, has_bar=True) as progress:
            downloads.get(source, data_dir, own.mirror, own.keep_archives, progress)
        checked = "checked by its SHA-256" if source.sha256 else "no checksum is published"
        lines.append(f"fetched     {targets} ({checked})")
    for asked in found.on_request:
        is_there = (data_dir / asked.needs).exists()
        lines.append(
            f"there       {asked.needs}" if is_there else f"on request  {asked.what}: ask at {asked.where}; {asked.then}"
        )
    return "\n".join(lines)
