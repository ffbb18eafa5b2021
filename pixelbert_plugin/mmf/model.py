"""Models as MMF's: built from the same options and seed, so that they start from the same weights as in our own runner."""

from typing import Any

import torch
from mmf.common.registry import registry as mmf_registry
from mmf.models.base_model import BaseModel
from mmf.modules.losses import Losses
from mmf.utils.distributed import get_rank, get_world_size
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.data.vocabularies import processor_states
from pixelbert_plugin.distributed.parallel import choice
from pixelbert_plugin.mmf.checkpoint_reader import pack, unpack
from pixelbert_plugin.mmf.data import FIELD, Carried
from pixelbert_plugin.mmf.defaults import model_yaml
from pixelbert_plugin.mmf.metrics import SampleScores
from pixelbert_plugin.mmf.optim import NAME as JOINT
from pixelbert_plugin.mmf.setting import Setting
from pixelbert_plugin.seeding import derive
from pixelbert_plugin.types import Batch, ModelOutput


class MmfModel(BaseModel):
    """One of our models, its task's loss and its processors' vocabularies, which travel in MMF's checkpoints."""

    def build(self) -> None:
        self.setting = Setting.of_run()
        self.model: Any = self.setting.make_model()

    def init_losses(self) -> None:
        """The task's loss is the model's: MMF need not warn of it."""
        self.losses = Losses([])
        self._logged_warning["losses_present"] = True

    def forward(self, sample_list: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """`losses` by part of the loss, `results` (outside training) for our metrics, and `scores` for MMF's own."""
        carried: Carried = sample_list[FIELD]
        batch, config, task = carried.batch, self.setting.config, self.setting.task
        if self.training and carried.update is not None:  # the dropout of our own runner
            torch.manual_seed(derive(config.training.seed, "dropout", carried.update, carried.index, get_rank()))
        output = self.model(batch, **(choice(self.model, task) if self.training else {}))
        prefix = f"{sample_list.dataset_type}/{sample_list.dataset_name}"
        # MMF divides by its update_frequency and averages over processes
        factor = self.setting.update_frequency * get_world_size() if carried.totals else 1
        totals = carried.totals or {part: count.clamp(min=1) for part, count in task.counts(batch).items()}
        losses = {f"{prefix}/{part}": factor * value / totals[part] for part, value in task.loss(output, batch).items()}
        found: dict[str, Any] = {"losses": losses, "results": []}
        is_measured = not self.training or mmf_registry.get("config").training.get("evaluate_metrics", False)
        if is_measured and not task.scores_all_pairs:
            results = task.predict(output, batch)
            found["results"] = [
                SampleScores(result, not weight) for result, weight in zip(results, batch.weights.tolist(), strict=True)
            ]
        scores = scores_by_sample(output, batch)
        return found if scores is None else {**found, "scores": scores}

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        """By our optimizers' groups where `optimizer.type` is ours; else as one list, for any optimizer of torch or MMF."""
        groups = self.model.parameter_groups()
        if config.optimizer.type == JOINT:
            return [
                {"params": [parameter for _, parameter in named], "names": [own for own, _ in named], "group": name}
                for name, named in groups.items()
            ]
        return [{"params": [parameter for named in groups.values() for _, parameter in named if parameter.requires_grad]}]

    def get_extra_state(self) -> Tensor:
        """uint8: what a checkpoint must say beside weights, as JSON; a tensor, so that nothing need be unpickled for it."""
        return pack({"processors": processor_states(self.setting.processors)})

    def set_extra_state(self, state: Tensor) -> None:
        """Take a checkpoint's vocabularies: its embeddings and heads belong to them."""
        for name, own in unpack(state).get("processors", {}).items():
            if name in self.setting.processors:
                self.setting.processors[name].load_state_dict(own)


def scores_by_sample(output: ModelOutput, batch: Batch) -> Tensor | None:
    """The logits of the head that `targets` belongs to."""
    names = [name for name in batch.targets if name in output.logits and len(output.logits[name]) == len(batch)]
    return output.logits[names[0]] if len(names) == len(batch.targets) == 1 else None


def wrap_model(own: str, name: str) -> type[MmfModel]:
    """A model of MMF's around ours, to be registered as `name`."""

    class Wrapped(MmfModel):
        @classmethod
        def config_path(cls) -> str:
            return model_yaml(own, name)

    Wrapped.__name__ = Wrapped.__qualname__ = f"Mmf_{own}"
    Wrapped.__doc__ = registry.description("model", own)
    return Wrapped
