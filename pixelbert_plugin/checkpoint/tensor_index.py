"""The index of a checkpoint's tensors, which torch.distributed.checkpoint writes: read as data alone, and checked.

It (`.metadata`) is a pickle: whoever writes such a file could run code in whoever loads it. So reading it admits DCP's own
plain classes and nothing else, and it may name nothing but tensors that lie whole in the files beside it.
"""

import math
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorStorageMetadata

INDEX = ".metadata"
FORMAT, FORMER_FORMAT = ".safetensors", ".distcp"  # of the files of tensors; the former holds what torch.save wrote
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


def is_tensor_file(name: str) -> bool:
    """Whether a checkpoint's file of this name holds tensors."""
    return name.endswith((FORMAT, FORMER_FORMAT))


def read_index(folder: Path) -> Metadata:
    """The index of a folder's tensors, in which every one of them is whole.

    Raises HostileFileError where it has more than tensors, leads out of the folder, or leaves a part of a tensor open: DCP
    would leave there what was in memory before.
    """
    with (folder / INDEX).open("rb") as file:
        try:
            index = _IndexUnpickler(file).load()
        except HostileFileError:
            raise
        except Exception as error:  # an arbitrary file may fail anywhere in the unpickler
            raise HostileFileError(f"{INDEX} is no index of tensors ({type(error).__name__}: {error})") from error
    try:
        _check(index, folder)
    except HostileFileError:
        raise
    except Exception as error:  # its parts may be of any of the admitted types
        raise HostileFileError(f"{INDEX} is no index of tensors ({type(error).__name__}: {error})") from error
    return index


def _check(index: Metadata, folder: Path) -> None:
    if not isinstance(index, Metadata):
        raise HostileFileError(f"{INDEX} is no index of tensors")
    stored, held = index.storage_data or {}, Counter[str]()
    for place in stored.values():
        path = Path(place.relative_path)
        if path.name != place.relative_path or not is_tensor_file(path.name) or getattr(place, "transform_descriptors", None):
            raise HostileFileError(f"{INDEX} leads to {place.relative_path!r}, which is no file of tensors beside it")
        held[path.name] += place.length
        if min(place.offset, place.length) < 0 or place.offset + place.length > (folder / path).stat().st_size:
            raise HostileFileError(f"{INDEX} leads past the end of {path.name}")
    if any(length > (folder / name).stat().st_size for name, length in held.items()):
        raise HostileFileError(f"{INDEX} has tensors that share their place in a file")
    for name, entry in index.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise HostileFileError(f"{INDEX}: {name} is no tensor but pickled bytes; it is refused, not executed")
        if not isinstance(entry.properties.dtype, torch.dtype) or not is_covered(entry.size, entry.chunks):
            raise HostileFileError(f"{INDEX}: the parts of {name} do not make up its {tuple(entry.size)}")
        for chunk in entry.chunks:
            place = stored.get(MetadataIndex(name, chunk.offsets))
            if place is None or place.length < math.prod(chunk.sizes) * entry.properties.dtype.itemsize:
                raise HostileFileError(f"{INDEX}: a part of {name} is nowhere")


def is_covered(size: Sequence[int], chunks: Sequence[ChunkStorageMetadata]) -> bool:
    """Whether the chunks lie within a tensor of this size, apart from each other, and fill it."""
    boxes = sorted([(low, low + length) for low, length in zip(c.offsets, c.sizes, strict=True)] for c in chunks)
    is_within = all(
        len(box) == len(size) and all(0 <= low <= high <= limit for (low, high), limit in zip(box, size, strict=True))
        for box in boxes
    )
    is_full = sum(math.prod(c.sizes) for c in chunks) == math.prod(size)
    return is_within and is_full and not _overlap([box for box in boxes if all(low < high for low, high in box)])


def _overlap(boxes: list[list[tuple[int, int]]]) -> bool:
    """Whether any two of the boxes, in order, share a point; each is compared with those that begin before it ends."""
    for number, box in enumerate(boxes):
        following = number + 1
        while following < len(boxes) and (not box or boxes[following][0][0] < box[0][1]):
            pairs = zip(box, boxes[following], strict=True)
            if all(low < other_high and other_low < high for (low, high), (other_low, other_high) in pairs):
                return True
            following += 1
    return False


def sizes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of every tensor of the folder."""
    entries = read_index(folder).state_dict_metadata  # all of them tensors, as read_index has checked
    return {
        name: (entry.size, entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
