"""Apex's fused optimizers by name where their kernels are built; torch's own otherwise, with a warning that says why."""

import logging
import math
from typing import Any

import torch
from torch.optim import Optimizer

from pixelbert_plugin import registry
from pixelbert_plugin.optim.optimizers import NamedParameters, decay_groups
from pixelbert_plugin.optim.options import AdamWConfig, SgdConfig
from pixelbert_plugin.precision.apex import nvidia as nvidia_apex
from pixelbert_plugin.precision.options import LambConfig
from pixelbert_plugin.registry.schema import ConfigError

logger = logging.getLogger(__name__)


@registry.register_optimizer("fused_adam")
def fused_adam(config: AdamWConfig, named_parameters: NamedParameters) -> Optimizer:
    """Apex's FusedAdam with decoupled weight decay; without its kernels, torch's fused AdamW."""
    groups = decay_groups(named_parameters, config.weight_decay)
    options: dict[str, Any] = {"lr": config.lr, "betas": tuple(config.betas), "eps": config.eps}
    reason = _why_not(groups)
    if reason is None:
        from apex.optimizers import FusedAdam

        optimizer: Any = FusedAdam(groups, **options, adam_w_mode=True)
        optimizer.counts_steps_by_group, optimizer.has_float32_state = True, True
    else:
        logger.warning("optimizer type fused_adam: %s; torch's fused AdamW is used", reason)
        optimizer = torch.optim.AdamW(groups, **options, fused=True)
    optimizer.rule = "adamw"
    return optimizer


@registry.register_optimizer("fused_sgd")
def fused_sgd(config: SgdConfig, named_parameters: NamedParameters) -> Optimizer:
    """Apex's FusedSGD; without its kernels, torch's fused SGD."""
    groups = decay_groups(named_parameters, config.weight_decay)
    options: dict[str, Any] = {"lr": config.lr, "momentum": config.momentum, "nesterov": config.nesterov}
    reason = _why_not(groups)
    if reason is None:
        from apex.optimizers import FusedSGD

        optimizer: Any = FusedSGD(groups, **options)
    else:
        logger.warning("optimizer type fused_sgd: %s; torch's fused SGD is used", reason)
        optimizer = torch.optim.SGD(groups, **options, fused=True)
    optimizer.rule = "sgd"
    return optimizer


@registry.register_optimizer("fused_lamb")
def fused_lamb(config: LambConfig, named_parameters: NamedParameters) -> Optimizer:
    """Apex's FusedLAMB, for very large batches; torch has no LAMB, so without its kernels this is a ConfigError."""
    groups = decay_groups(named_parameters, config.weight_decay)
    reason = _why_not(groups)
    if reason is not None:
        raise ConfigError(
            registry.key_of(config),
            f"fused_lamb has no equivalent in torch, and {reason}; use adamw, or build Apex with its CUDA kernels",
        )
    from apex.optimizers import FusedLAMB

    # it would clip each optimizer's gradients by their own norm: training.max_grad_norm is the norm of all
    optimizer = FusedLAMB(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, max_grad_norm=math.inf)
    optimizer.counts_steps_by_group = True
    optimizer.rule = "lamb"
    return optimizer


# a function has no attributes that a type checker knows of
fused_adam.Config = AdamWConfig  # type: ignore[attr-defined]
fused_sgd.Config = SgdConfig  # type: ignore[attr-defined]
fused_lamb.Config = LambConfig  # type: ignore[attr-defined]


def _why_not(groups: list[dict[str, Any]]) -> str | None:
    """Why Apex's kernels cannot step these parameters; None where they can."""
    device_type = groups[0]["params"][0].device.type if groups else "cpu"
    return nvidia_apex.why_no_kernels("amp_C", device_type)
