"""Tensors in a checkpoint's folder by torch.distributed.checkpoint: each process writes its part, any number read it back.

DCP's index (`.metadata`) is a pickle, and an entry that is no tensor is one too: whoever writes such a file could run code
in whoever loads it. So only tensors are stored, and reading the index admits DCP's own plain classes and nothing else.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

INDEX = ".metadata"
PATTERN = "*.distcp"
# what an index of tensors is made of, by module and name; all of them are plain data
ADMITTED = {
    ("torch.distributed.checkpoint.metadata", name)
    for name in (
        "Metadata",
        "MetadataIndex",
        "TensorStorageMetadata",
        "TensorProperties",
        "ChunkStorageMetadata",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    )
} | {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
}
DTYPES = {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}


class HostileFileError(ValueError):
    """A file holds what would be executed, or would lead elsewhere."""


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ADMITTED or (module == "torch" and name in DTYPES):
            return super().find_class(module, name)
        raise HostileFileError(f"{INDEX} names {module}.{name}, which no index of tensors has: it is refused, not executed")


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return read_index(Path(self.path))


def read_index(folder: Path) -> Metadata:
    """The index of a folder's tensors. Raises HostileFileError where it has more than tensors, or leads out of the folder."""
    with (folder / INDEX).open("rb") as file:
        try:
            index = _IndexUnpickler(file).load()
        except HostileFileError:
            raise
        except Exception as error:  # an arbitrary file may fail anywhere in the unpickler
            raise HostileFileError(f"{INDEX} is no index of tensors ({type(error).__name__}: {error})") from error
    if not isinstance(index, Metadata) or not isinstance(index.state_dict_metadata, dict):
        raise HostileFileError(f"{INDEX} is no index of tensors")
    for name, entry in index.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise HostileFileError(f"{INDEX}: {name} is no tensor but pickled bytes; it is refused, not executed")
    for entry in (index.storage_data or {}).values():
        path = Path(entry.relative_path)
        if path.name != entry.relative_path or not path.match(PATTERN) or entry.transform_descriptors:
            raise HostileFileError(f"{INDEX} leads to {entry.relative_path!r}, which is no file of tensors beside it")
    return index


def sizes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of every tensor of the folder."""
    index = read_index(folder)
    return {name: (entry.size, entry.properties.dtype) for name, entry in index.state_dict_metadata.items()}


def write(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write tensors into a folder that exists and is empty; called in every process, each giving the same names.

    Raises OSError, in every process, where one of them cannot write.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without a process group DCP says that it assumes one process
            dcp.save(tensors, storage_writer=FileSystemWriter(folder), no_dist=not torch.distributed.is_initialized())
    except CheckpointException as error:
        raise OSError(_reason(error)) from error


def read(into: dict[str, Tensor], folder: Path) -> None:
    """Fill tensors, whole or sharded, with those of the same names; each process reads what it needs, by itself.

    Raises HostileFileError or OSError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(into, storage_reader=_Reader(folder), no_dist=True)
    except CheckpointException as error:
        if any(isinstance(cause, pickle.UnpicklingError) for cause, _ in error.failures.values()):
            reason = "a file of tensors holds something else; it is refused, not executed"
            raise HostileFileError(reason) from error
        raise OSError(_reason(error)) from error


def read_all(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The whole tensors, on the CPU, whose names begin with `prefix`, by the rest of their names."""
    found = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in sizes(folder).items() if name.startswith(prefix)}
    read(found, folder)
    return {name.removeprefix(prefix): value for name, value in found.items()}


def _reason(error: CheckpointException) -> str:
    """The operating system's word for it, where torch's own error only hides it."""
    cause = next(iter(error.failures.values()))[0]
    link: BaseException | None = cause
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    if "unexpected pos" in str(cause) or "PytorchStreamWriter" in str(cause):  # what torch makes of a write cut short
        return "a file could not be written whole: no space left, or too large"
    return str(cause).splitlines()[0][:200]
