"""Our optimizers and schedulers for MMF, which holds one of each.

optimizer: {type: pixelbert, params: {cnn: {type: sgd, params: {lr: 1.0e-2}}, transformer: {type: adamw}}}
scheduler: {type: pixelbert_step, params: {milestones: [12, 16]}}    # with training.lr_scheduler: true
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from pixelbert_plugin import registry
from pixelbert_plugin.mmf.nodes import plain
from pixelbert_plugin.mmf.setting import Setting, position_after
from pixelbert_plugin.registry.schema import Component, ConfigError
from pixelbert_plugin.training.length import over_training

NAME = "pixelbert"


class JointOptimizer(torch.optim.Optimizer):
    """The optimizers of a model's parameter groups as one. `groups`: {type, params} by group, as our own `optimizer` key."""

    def __init__(self, params: list[dict[str, Any]], **groups: Any):
        chosen = plain(groups)
        given = {group["group"]: list(zip(group["names"], group["params"], strict=True)) for group in params}
        if set(groups) != set(given):
            raise ConfigError(
                "optimizer.params", f"has {', '.join(groups) or 'nothing'}, but the groups are {', '.join(given)}"
            )
        self.optimizers = {
            name: registry.build_component(
                "optimizer",
                Component(chosen[name]["type"], chosen[name].get("params") or {}),
                f"optimizer.params.{name}.params",
                named_parameters=named,
            )
            for name, named in given.items()
            if any(parameter.requires_grad for _, parameter in named)
        }
        super().__init__(self._own_groups(), {})  # the very groups that ours hold, so that a scheduler reaches them

    def _own_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError, as torch's do, where the state is of other optimizers."""
        if set(state_dict) != set(self.optimizers):
            raise ValueError(f"the state is of {', '.join(map(str, state_dict))}, not of {', '.join(self.optimizers)}")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state_dict[name])
        self.param_groups = self._own_groups()


def wrap_scheduler(own: str) -> Callable[..., LambdaLR]:
    """Makes a scheduler of torch's, stepped by MMF after every update, out of ours."""

    def make(optimizer: torch.optim.Optimizer, **params: Any) -> LambdaLR:
        setting = Setting.of_run()
        built = registry.build("scheduler", own, plain(params), "scheduler.params")
        schedule = over_training(built, setting.config.training)
        samples = setting.samples_per_epoch() if "train" in setting.data.splits else 1

        def factor(updates: int) -> float:
            """On the rates of the update after so many."""
            return schedule(updates + 1, position_after(updates, samples, setting.update_samples) / samples)

        return LambdaLR(optimizer, factor)

    return make
