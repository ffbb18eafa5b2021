"""Tensors in a checkpoint's folder by torch.distributed.checkpoint (DCP): each process writes a part, any number read it back.

DCP decides which process writes what and brings the parts together again; a process's part is one safetensors file, which
executes nothing, costs one write however many tensors there are, and which others read as well. DCP's own writer calls
torch.save for each tensor, which takes three times as long; what it has written is still read. (DCP's
HuggingFaceStorageWriter keeps no index beside such files, and its options are named differently in torch 2.8 and 2.14.)
"""

import json
import os
import pickle
import re
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItemType
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from pixelbert_plugin.checkpoint.tensor_index import FORMAT, HostileFileError, read_index, sizes
from pixelbert_plugin.errors import replacing


class _Writer(FileSystemWriter):
    """A process's tensors in one safetensors file."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        assert all(item.type != WriteItemType.BYTE_IO for item in plan.items), "only tensors are stored"
        tensors, storages = {}, set()
        for item in plan.items:
            value: Any = planner.resolve_data(item)
            tensor = value.detach().cpu().contiguous()
            storage = tensor.untyped_storage().data_ptr()
            if storage in storages:  # tied weights: safetensors admits no shared memory
                tensor = tensor.clone()
            storages.add(storage)
            tensors[_name(item.index)] = tensor
        name = f"{plan.storage_data.prefix}0{FORMAT}"
        places = _write_file(tensors, Path(self.path) / name) if tensors else {}
        results = []
        for item in plan.items:
            offset, length = places[_name(item.index)]
            results.append(WriteResult(item.index, length, _StorageInfo(name, offset, length)))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done


class _Reader(FileSystemReader):
    """Of safetensors files, and of those that DCP's own writer left."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return read_index(Path(self.path))

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        files: dict[str, list[Any]] = {}
        for item in plan.items:
            files.setdefault(self.storage_data[item.storage_index].relative_path, []).append(item)
        former = [item for name, items in files.items() if not name.endswith(FORMAT) for item in items]
        for name in files:
            if name.endswith(FORMAT):
                with safe_open(Path(self.path) / name, "pt") as file:
                    for item in files[name]:
                        _fill(item, file.get_tensor(_name(item.storage_index)), planner)
        return super().read_data(replace(plan, items=former), planner)


def _fill(item: Any, stored: Tensor, planner: LoadPlanner) -> None:
    """Copy what is asked for of a stored tensor to where it belongs."""
    offsets, lengths = item.storage_offsets, item.lengths
    ends = [start + length for start, length in zip(offsets, lengths, strict=True)]
    if stored.dim() != len(ends) or any(end > size for end, size in zip(ends, stored.shape, strict=True)):
        raise HostileFileError(f"{item.storage_index.fqn}: the file has another shape than its index")
    target = planner.resolve_tensor(item).detach()
    target.copy_(stored[tuple(map(slice, offsets, ends))])
    planner.commit_tensor(item, target)


def _name(index: MetadataIndex) -> str:
    """A tensor's name in the file; a part that does not begin at 0 has its place behind the name."""
    return f"{index.fqn}@{','.join(map(str, index.offset))}" if index.offset and any(index.offset) else index.fqn


def _write_file(tensors: dict[str, Tensor], path: Path) -> dict[str, tuple[int, int]]:
    """Write a safetensors file. Returns each tensor's offset in it and its length, in bytes. Raises OSError."""
    try:
        with replacing(path) as aside:
            save_file(tensors, aside)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error)) from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    begins = {name: header[name]["data_offsets"] for name in tensors}
    return {name: (8 + length + begin, end - begin) for name, (begin, end) in begins.items()}


def write(tensors: dict[str, Tensor], folder: Path, group: dist.ProcessGroup | None = None) -> None:
    """Write tensors into a folder that exists and is empty; called in every process of `group`, each giving the same names.

    Raises OSError, in every process, where one of them cannot write.
    """
    _ignore_remarks()
    try:
        save(tensors, storage_writer=_Writer(folder), process_group=group, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise OSError(_reason(error)) from error


def read(into: dict[str, Tensor], folder: Path) -> None:
    """Fill tensors, whole or sharded, with those of the same names; each process reads what it needs, by itself.

    Raises HostileFileError or OSError.
    """
    _ignore_remarks()
    try:
        load(into, storage_reader=_Reader(folder), no_dist=True)
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


@cache
def _ignore_remarks() -> None:
    """DCP says that it assumes one process; once for all, since filters that come and go are not for threads."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


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
