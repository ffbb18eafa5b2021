"""Weights into modules: every name that does not fit is reported, never silently skipped."""

import json
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pixelbert_plugin.errors import RunError, UserError, replacing
from pixelbert_plugin.system.foreign import what_else

logger = logging.getLogger(__name__)

MAX_TABLE = 1 << 24  # bytes of a file's table of contents that are looked at
MISSING, SURPLUS, RESHAPED = "tensors missing", "tensors that the model has not", "tensors of another shape"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, or of a .pth / .bin read with `weights_only=True` (nothing in it is executed).

    Detectron and training scripts nest the tensors under "model" or "state_dict"; both are looked into.
    Raises ValueError("weights: …") where the file cannot be read.
    """
    try:
        content = read_file(path)
        for nested in ("model", "state_dict"):
            if isinstance(content, dict) and isinstance(content.get(nested), dict):
                content = content[nested]
        is_state = isinstance(content, dict) and all(isinstance(name, str) for name in content)
        if not is_state or not all(isinstance(value, Tensor) and value.layout == torch.strided for value in content.values()):
            raise ValueError("holds no mapping of names to tensors (a state dict)")
    except ValueError as error:
        raise ValueError(f"weights: {str(path)[:300]!r}: {error}") from error
    return content


def read_file(path: Path) -> Any:
    """What a file of weights holds: tensors, and plain values around them. Raises ValueError that says what is wrong."""
    require_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles and TorchScript, which are refused in our words below
            return torch.load(path, map_location="cpu", weights_only=True)
    except RunError:
        raise
    except Exception as error:  # a damaged file may fail anywhere in the reader
        if told := what_else(path, but=(b"PK\x03\x04",)):  # torch.save writes a zip archive
            raise ValueError(told) from error
        raise ValueError(f"not a readable file of weights ({one_line(error)})") from error


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A .safetensors, in a folder that is made where it is not there. Raises OSError; the file is whole or as it was before."""
    tensors = {name: value.cpu().contiguous() for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        try:
            save_file(tensors, aside, {"format": "pt", **(metadata or {})})  # "pt": what transformers and others expect
        except SafetensorError as error:  # of a full disk, it says no more than its message
            raise OSError(str(error)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a .safetensors that can be read says beside its tensors; {} for other files."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def require_file(path: Path) -> None:
    """Raises ValueError where the path is no file with content."""
    if os.path.isdir(path):
        raise ValueError("is a folder; name the file of weights in it")
    if not os.path.isfile(path):
        raise ValueError("no such file")
    if not os.path.getsize(path):
        raise ValueError("is empty; fetch it again")


def mentions(path: Path, name: str) -> bool:
    """Whether a .safetensors or a file of torch.save has a tensor of this name, by its table of contents; nothing is loaded."""
    wanted = name.encode()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                tables = [member for member in archive.infolist() if member.filename.endswith("data.pkl")]
                return any(wanted in archive.read(member) for member in tables if member.file_size <= MAX_TABLE)
        with path.open("rb") as file:
            return wanted in file.read(MAX_TABLE)  # safetensors and older torch begin with the names
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return False


def require_shards(folder: Path) -> None:
    """Raises ValueError where an index of a folder's sharded weights names a file that is not beside it, or is no such file."""
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(shards.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{index.name} is no index of weights ({one_line(error)})") from error
        kind = ".safetensors" if ".safetensors" in index.name else ".bin"
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(kind):
                raise ValueError(f"{index.name} names {str(name)[:200]!r}, which is no {kind} file beside it")
            if not os.path.isfile(folder / name):
                raise ValueError(f"{index.name} names {name!r}, which is not there; fetch it again")
            if kind == ".safetensors":
                _require_tensors(folder / name, {tensor for tensor, shard in shards.items() if shard == name})


def _require_tensors(file: Path, names: set[str]) -> None:
    try:
        with safe_open(file, "pt") as opened:
            missing = names - set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file.name}: not a readable file of weights ({one_line(error)})") from error
    if missing:
        raise ValueError(f"{file.name} has no {min(missing)!r}, which the index says it has")


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of its message, for a message of ours."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):  # torch would advise to execute what is in it
        return (
            "damaged, or it holds Python objects, which could run code and are never loaded; save the tensors by themselves, "
            "as torch.save(model.state_dict(), PATH) does"
        )
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def load_reported(
    module: nn.Module,
    state: dict[str, Tensor],
    source: str,
    expected_missing: Iterable[str] = (),
    expected_unused: Iterable[str] = (),
) -> None:
    """Load what fits by name and shape, and log every missing, unmatched and wrongly shaped name.

    `expected_missing` and `expected_unused` are prefixes of names that a source of this kind may lack, or have beyond the
    module's (another task's heads, say): named in one line, not warned of.
    Raises UserError where nothing at all fits.
    """
    own = module.state_dict()
    fits = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not fits:
        raise UserError(f"{source}: none of its {len(state)} tensors fits {type(module).__name__}; is it of another model?")
    module.load_state_dict(fits, strict=False)
    differences = compare(module, state)
    prefixes, unused = tuple(expected_missing), tuple(expected_unused)
    missing, surplus = differences[MISSING], differences[SURPLUS]
    report = {
        "left as initialised, not in the file": [name for name in missing if not name.startswith(prefixes)],
        "left as initialised, as expected": [name for name in missing if name.startswith(prefixes)],
        "in the file but not in the model": [name for name in surplus if not name.startswith(unused)],
        "in the file but not in the model, as expected": [name for name in surplus if name.startswith(unused)],
        "of another shape, not loaded": differences[RESHAPED],
    }
    logger.info("%s: %d tensors loaded into %s", source, len(fits), type(module).__name__)
    report_names(source, report)


def compare(module: nn.Module, state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Names that a module's own tensors and `state` do not share, by kind; the count that batch norms keep is left out."""
    own = module.state_dict()
    missing, surplus = (
        [name for name in names if name not in others and not name.endswith("num_batches_tracked")]
        for names, others in ((own, state), (state, own))
    )
    reshaped = [
        f"{name} {tuple(value.shape)} ≠ {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    return {MISSING: missing, SURPLUS: surplus, RESHAPED: reshaped}


def report_names(source: str, report: dict[str, list[str]]) -> None:
    """Log each list of names under its heading; what was expected at info level, the rest as warnings."""
    for what, names in report.items():
        if names:
            level = logging.INFO if what.endswith("expected") else logging.WARNING
            logger.log(level, "%s: %d %s: %s", source, len(names), what, ", ".join(names))
