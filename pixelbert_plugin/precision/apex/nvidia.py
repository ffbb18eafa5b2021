"""What of NVIDIA's Apex can be used here, judged by its files: PyPI's `apex` is another project, and versions say nothing.

Every Apex calls itself 0.1. Nothing of Apex is imported before its files say that it is NVIDIA's and has what is asked for.
"""

import importlib
import importlib.util
from pathlib import Path

AMP_REMOVED = "removed in May 2025 (commit cb65b8ed, NVIDIA/apex #1896); tag 25.05 is the last with it"


def why_no_amp(device_type: str) -> str | None:
    """Why `apex.amp` cannot be used for a model on a device of this type ("cuda", "cpu"); None where it can."""
    folder, reason = _find()
    if folder is None:
        return reason
    if not all((folder / "amp" / name).is_file() for name in ("__init__.py", "frontend.py")):
        return f"NVIDIA's Apex in {folder} has no amp: {AMP_REMOVED}"
    return _why_no_cuda("apex.amp needs", device_type) or _why_no_import("apex.amp", "apex.amp")


def why_no_kernels(extension: str, device_type: str) -> str | None:
    """Why Apex's CUDA kernels of this extension (`amp_C`, `fused_layer_norm_cuda`) cannot be used; None where they can."""
    folder, reason = _find()
    if folder is None:
        return reason
    what = f"Apex's kernels ({extension})"
    return _why_no_cuda(f"{what} need", device_type) or _why_no_import(extension, f"{what} are not built: {extension}")


def _find() -> tuple[Path | None, str | None]:
    """The folder of NVIDIA's Apex, or None and why there is none."""
    spec = importlib.util.find_spec("apex")  # of a top-level name: looks for files only
    places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec is not None else []
    if not places:
        return None, "NVIDIA's Apex is not installed"
    folder = Path(places[0])
    if (folder / "multi_tensor_apply").is_dir() and (folder / "optimizers" / "fused_adam.py").is_file():
        return folder, None
    if (folder / "lib" / "libapex.py").is_file():
        return None, f"the apex in {folder} is PyPI's Pyramid web toolkit of that name, not NVIDIA's Apex"
    return None, f"the apex in {folder} is not NVIDIA's Apex"


def _why_no_cuda(what: str, device_type: str) -> str | None:
    import torch

    if not torch.cuda.is_available():
        return f"{what} CUDA, and torch sees no CUDA device"
    return None if device_type == "cuda" else f"{what} CUDA, and the model is on the {device_type}"


def _why_no_import(module: str, what: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # of code that is not ours: whatever it raises is the reason
        reason = str(error).splitlines()[0] if str(error) else ""
        return f"{what} cannot be imported ({type(error).__name__}: {reason})"
    return None
