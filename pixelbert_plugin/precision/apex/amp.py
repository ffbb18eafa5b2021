"""The levels O0 to O3 by NVIDIA's own `apex.amp`, which patches the model, the optimizers and, for O1, torch."""

import math
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pixelbert_plugin.precision.apex.levels import LARGEST_SCALE, check_eps, resolve
from pixelbert_plugin.precision.loss_scale import check_scale
from pixelbert_plugin.precision.master_weights import full_weights, is_norm_kept
from pixelbert_plugin.precision.native import Precision, clip_gradients, global_norm
from pixelbert_plugin.precision.options import ApexConfig

WINDOW = 2000  # updates after which amp doubles its scale, at exactly this count


class ApexAmp(Precision):
    """Glue to apex.amp: it casts, scales, holds the masters and skips; clipping and the one decision are here.

    The order is Apex's: model to its device, optimizers, `prepare`, DDP, schedule. O1 patches torch's functions for the
    rest of the process.
    """

    def __init__(self, config: ApexConfig, device: torch.device):
        super().__init__(device)
        from apex import amp

        self._amp = amp
        self.level = resolve(config)
        self.skips_overflow = self.level.loss_scale is None
        names = ("loss_scale", "keep_batchnorm_fp32", "master_weights")
        self._overrides = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
        self._parameters: list[nn.Parameter] = []
        self._optimizers: list[Optimizer] = []
        self._is_armed = False  # whether amp has found an overflow, and armed every optimizer to skip its next step
        self.skipped_updates = 0

    @property
    def description(self) -> dict[str, str]:
        return {"precision": "apex", "opt_level": self.level.name, "backend": "apex"}

    @property
    def loss_scale(self) -> float | None:  # type: ignore[override]  # nobody sets a precision's
        """None before `prepare`."""
        return self._scaler()["loss_scale"] if self._parameters else None

    def prepare(self, model: nn.Module, optimizers: dict[str, Optimizer]) -> None:
        """amp.initialize, its masters made at once and from the unrounded weights. Raises ConfigError for a lost eps."""
        before = full_weights(model) if self.level.has_masters and optimizers else {}
        norms = _frozen_norms(model) if self.level.has_half_weights and self.level.keeps_norms else {}
        self._parameters, self._optimizers = list(model.parameters()), list(optimizers.values())
        arguments = (model, self._optimizers) if optimizers else (model,)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that amp is deprecated: docs/precision.md says more
            self._amp.initialize(*arguments, opt_level=self.level.name, verbosity=0, **self._overrides)
        check_eps(self.level, optimizers)
        for module, state in norms.items():  # amp knows only torch's own batch norms
            module.float().load_state_dict(state)
        self.masters.remember(before)
        if not self.level.has_masters:
            return
        held: list[Any] = self._optimizers  # with what apex.amp has put on them
        for optimizer in held:
            optimizer._amp_lazy_init()  # else masters are made at the first backward pass, after a checkpoint is loaded
            stash = optimizer._amp_stash
            for parameter, master in zip(stash.all_fp16_params, stash.all_fp32_from_fp16_params, strict=True):
                self.masters.adopt(parameter, master)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.level.autocasts and not torch.is_grad_enabled():
            # O1 keeps half copies of weights until the next backward pass, even where a checkpoint is loaded in between
            self._amp._amp_state.handle._clear_cache()
        return nullcontext()

    def backward(self, loss: Tensor, is_last: bool = True) -> None:
        before = self._scaler()["loss_scale"]
        with self._amp.scale_loss(loss, self._optimizers, delay_unscale=not is_last) as scaled:
            scaled.backward()
        self._is_armed = self._scaler()["loss_scale"] < before

    def step(self, optimizers: Iterable[Optimizer], max_norm: float | None) -> Tensor:
        optimizers = list(optimizers)
        held = [parameter for optimizer in optimizers for parameter in self._amp.master_params(optimizer)]
        # amp unscales no further than the first overflow: then the gradients have no norm
        norm = torch.tensor(math.inf, device=self.device) if self._is_armed else global_norm(held, self.device)
        is_skipped = self.skips_overflow and not bool(norm.isfinite())
        if is_skipped and not self._is_armed:  # gradients that are finite one by one
            self._set_scaler(self._scaler()["loss_scale"] / 2, 0)
        if not is_skipped:
            clip_gradients(held, max_norm, norm)
        for optimizer in optimizers:
            if self._is_armed or not is_skipped:
                optimizer.step()  # where amp is armed, its stand-in that does nothing but make place for the true one
            optimizer.zero_grad()
        for parameter in self._parameters:  # amp's zero_grad leaves zeros, with which an unused weight would decay
            parameter.grad = None
        self._is_armed = False
        if is_skipped:
            self.skipped_updates += 1
            check_scale(self._scaler()["loss_scale"])
        return norm

    def group_norms(self, optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """amp has unscaled what the optimizers hold once the last backward pass is done; where it overflowed none is told."""
        if self._is_armed:
            return {}
        held = {name: list(self._amp.master_params(optimizer)) for name, optimizer in optimizers.items()}
        return {name: global_norm(parameters, self.device) for name, parameters in held.items()}

    def state_dict(self) -> dict[str, float | int]:
        if not self.skips_overflow or not self._parameters:
            return {}
        scaler = self._scaler()
        return {
            "loss_scale": scaler["loss_scale"],
            "clean_updates": scaler["unskipped"],
            "skipped_updates": self.skipped_updates,
        }

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """After `prepare`, which makes amp's scaler."""
        if self.skips_overflow and state:
            self._set_scaler(min(float(state["loss_scale"]), LARGEST_SCALE), min(int(state["clean_updates"]), WINDOW - 1))
            self.skipped_updates = int(state["skipped_updates"])

    def _set_scaler(self, loss_scale: float, clean_updates: int) -> None:
        self._amp.load_state_dict({"loss_scaler0": {"loss_scale": loss_scale, "unskipped": clean_updates}})

    def _scaler(self) -> dict[str, Any]:
        return self._amp.state_dict()["loss_scaler0"]


def _frozen_norms(model: nn.Module) -> dict[nn.Module, dict[str, Tensor]]:
    """The float32 statistics of batch norms that amp would cast and the native level does not."""
    return {
        module: {name: value.clone() for name, value in module.state_dict().items()}
        for module in model.modules()
        if is_norm_kept(module) and not isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
