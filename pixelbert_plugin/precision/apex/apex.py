"""`training.precision: apex`: NVIDIA's Apex where it has amp and there is CUDA, else the native equivalent, saying why."""

import logging

import torch

from pixelbert_plugin import registry
from pixelbert_plugin.precision.apex import nvidia as nvidia_apex
from pixelbert_plugin.precision.apex.amp import ApexAmp
from pixelbert_plugin.precision.apex.levels import NativeLevel, resolve
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.precision.options import ApexConfig
from pixelbert_plugin.registry.schema import ConfigError

logger = logging.getLogger(__name__)

EQUIVALENTS = {
    "O0": "float32",
    "O1": "float16 autocast with loss scaling",
    "O2": "float16 weights but for batch norms, float32 masters, loss scaling",
    "O3": "float16 throughout",
}


@registry.register_precision("apex")
def apex(config: ApexConfig, device: torch.device) -> Precision:
    """NVIDIA Apex's levels O0 to O3; without usable Apex, the same by torch's own means.

    `backend: apex` never falls back: it raises ConfigError with the reason.
    """
    if config.backend == "native":
        return NativeLevel(resolve(config), device, f"{registry.key_of(config, 'backend')}=native")
    reason = nvidia_apex.why_no_amp(device.type)
    if reason is None:
        return ApexAmp(config, device)
    if config.backend == "apex":
        raise ConfigError(registry.key_of(config, "backend"), f"'apex', but {reason}; use auto or native for the equivalent")
    logger.warning(
        "training.precision=apex: %s; opt_level=%s runs natively: %s", reason, config.opt_level, EQUIVALENTS[config.opt_level]
    )
    return NativeLevel(resolve(config), device, reason)


apex.Config = ApexConfig  # type: ignore[attr-defined]  # a function has no attributes that a type checker knows of
