"""Weights into modules: every name that does not fit is reported, never silently skipped."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from pixelbert_plugin.errors import UserError

logger = logging.getLogger(__name__)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, or of a .pth / .bin read with `weights_only=True` (nothing in it is executed).

    Detectron and training scripts nest the tensors under "model" or "state_dict"; both are looked into.
    Raises ValueError("weights: …") where the file cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"weights: {str(path)!r}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"weights: {str(path)!r}: not a readable file of weights ({reason})") from error
    for nested in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(nested), dict):
            content = content[nested]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"weights: {str(path)!r}: holds no mapping of names to tensors (a state dict)")
    return content


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
    prefixes, unused = tuple(expected_missing), tuple(expected_unused)
    surplus = [name for name in state if name not in own and not name.endswith("num_batches_tracked")]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    report = {
        "left as initialised, not in the file": [name for name in missing if not name.startswith(prefixes)],
        "left as initialised, as expected": [name for name in missing if name.startswith(prefixes)],
        "in the file but not in the model": [name for name in surplus if not name.startswith(unused)],
        "in the file but not in the model, as expected": [name for name in surplus if name.startswith(unused)],
        "of another shape, not loaded": [
            f"{name} {tuple(value.shape)} ≠ {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and own[name].shape != value.shape
        ],
    }
    logger.info("%s: %d tensors loaded into %s", source, len(fits), type(module).__name__)
    report_names(source, report)


def report_names(source: str, report: dict[str, list[str]]) -> None:
    """Log each list of names under its heading; what was expected at info level, the rest as warnings."""
    for what, names in report.items():
        if names:
            level = logging.INFO if what.endswith("expected") else logging.WARNING
            logger.log(level, "%s: %d %s: %s", source, len(names), what, ", ".join(names))
