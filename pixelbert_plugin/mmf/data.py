"""Builders as MMF's: the same files, samples, order and batches as in our own runner, handed to MMF's trainer.

MMF collates samples of equal size one by one. Ours share images and are padded batch by batch, so a data set here gives
whole batches; MMF's own mixing of several data sets, its epochs and its evaluation loop are left to it.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry as mmf_registry
from mmf.common.sample import SampleList
from mmf.datasets.base_dataset_builder import BaseDatasetBuilder
from mmf.utils.distributed import get_rank, get_world_size
from mmf.utils.general import get_current_device
from torch import Tensor

from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.sampler import evaluation_order
from pixelbert_plugin.distributed.processes import Processes
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.mmf.defaults import builder_yaml
from pixelbert_plugin.mmf.metrics import SampleScores, unique_results
from pixelbert_plugin.mmf.setting import Setting, position_after
from pixelbert_plugin.types import Batch

FIELD = "pixelbert"  # of a SampleList: what our model reads


@dataclass(frozen=True)
class Carried:
    """A batch inside a SampleList, on its device already; MMF moves and copies what it finds there."""

    batch: Batch
    update: int | None = None  # that it belongs to, counted from 1; None outside training
    index: int = 0  # among the update's micro-batches
    totals: dict[str, Tensor] = field(default_factory=dict)  # by part of the loss: terms in the update. {}: the batch's own

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Carried":
        return replace(self, batch=self.batch.to(torch.device(device)))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Carried":
        return self  # nothing changes a batch; MMF copies whole reports


class SplitDataset:
    """One data set's split, as MMF looks at it. Its length counts pairs, as `training.batch_size` does."""

    def __init__(self, setting: Setting, own: str, name: str, dataset_type: str):
        self.setting, self.own, self.dataset_name, self.dataset_type = setting, own, name, dataset_type
        self.samples = setting.data.splits[dataset_type].parts[own]

    def __len__(self) -> int:
        """In training with accumulated gradients an update more than there are: MMF's loop would end an epoch's last update
        after its first batch and divide the losses of the others by 0."""
        training, frequency = self.setting.config.training, self.setting.update_frequency
        surplus = frequency * training.batch_size if self.dataset_type == "train" and frequency > 1 else 0
        return self.setting.epoch_size(self.dataset_type, self.own) * self.setting.task.pairs_per_sample + surplus

    def format_for_prediction(self, report: Any) -> list[SampleScores]:
        return list(report.get("results", []))

    def on_prediction_end(self, rows: list[SampleScores]) -> list[dict[str, Any]]:
        """The predictions file's rows, each sample once, in the split's order; the official ones where those are JSON."""
        found = {result.sample.sample_id: result for result in unique_results(rows, keep_skipped=True)}
        results = [found[sample.sample_id] for sample in self.samples if sample.sample_id in found]
        predictions = self.setting.task.predictions
        suffix, text = predictions(results) if results and predictions is not None else ("", "")
        if suffix == ".json":
            return json.loads(text)
        return [{"sample_id": result.sample.sample_id, "prediction": result.prediction} for result in results]


class AbsentDataset:
    """A split that run_type does not ask for, or that the data set does not have."""

    def __init__(self, name: str, dataset_type: str):
        self.dataset_name, self.dataset_type = name, dataset_type

    def __len__(self) -> int:
        return 1  # MMF refuses a length of 0, although it does not ask for a batch of every split


class Batches:
    """What MMF iterates over, once per epoch of training or per evaluation."""

    def __init__(self, dataset: SplitDataset | AbsentDataset):
        self.dataset, self.dataset_type = dataset, dataset.dataset_type
        self._loader: Loader | None = None
        self._updates: int | None = None  # before the next epoch of training

    @property
    def split(self) -> SplitDataset:
        """The split. Raises UserError where there is none."""
        if isinstance(self.dataset, AbsentDataset):
            raise UserError(
                f"dataset={self.dataset.dataset_name}: it has no {self.dataset_type} split, or run_type does not name it"
            )
        return self.dataset

    @property
    def loader(self) -> Loader:
        if self._loader is None:
            device = torch.device(get_current_device())
            self._loader = self.split.setting.make_loader(self.dataset_type, self.split.own, device, mmf_processes())
        return self._loader

    def __len__(self) -> int:
        setting = self.split.setting
        pairs = setting.epoch_size(self.dataset_type, self.split.own) * setting.task.pairs_per_sample
        return math.ceil(pairs / setting.config.training.batch_size)

    def __iter__(self) -> Iterator[SampleList]:
        if self.dataset_type == "train":
            yield from self._train()
        else:
            self.split.setting.baseline.learn()
            yield from self._evaluate()

    def _train(self) -> Iterator[SampleList]:
        """The micro-batches of one epoch, or of what is left of it after a resume: those our own runner would take. Each
        update gets `update_frequency` of them, which MMF counts; where it is short, filled up with one that weighs nothing."""
        training, task = self.split.setting.config.training, self.split.setting.task
        frequency, update_samples = self.split.setting.update_frequency, self.split.setting.update_samples
        share = max(1, training.batch_size // task.pairs_per_sample // get_world_size())  # of a micro-batch
        is_alone = len(self.split.setting.config.datasets) == 1  # of several, MMF mixes the batches of an update
        per_epoch = math.ceil(len(self.loader) / update_samples)
        if self._updates is None:
            self._updates = mmf_registry.get("num_updates", 0, no_warning=True) if is_alone else 0  # set where MMF resumes
        position = position_after(self._updates, len(self.loader), update_samples)
        is_measured = mmf_registry.get("config").training.get("evaluate_metrics", False)  # in training too
        updates = self.loader.updates(position, update_samples, share, training.texts_per_image, is_measured)
        end = (self._updates // per_epoch + 1) * per_epoch
        for update in range(self._updates + 1, end + 1):
            micro_batches, _ = next(updates)
            totals = self._totals(micro_batches) if is_alone else {}
            ready = self.loader.one_ahead(micro_batches)
            for index in range(frequency):
                if index < len(micro_batches):
                    batch = next(ready)
                elif index == len(micro_batches):
                    batch = replace(batch, weights=torch.zeros_like(batch.weights))
                yield sample_list(Carried(batch, update, index, totals))
        self._updates = end

    def _evaluate(self) -> Iterator[SampleList]:
        """Every sample. Each process gets as many batches of the same sizes, filled up with samples that others have too:
        MMF passes over batches that differ."""
        config, task, processes = self.split.setting.config, self.split.setting.task, get_world_size()
        pairs = config.evaluation.batch_size or config.training.batch_size
        samples = max(1, pairs // task.pairs_per_sample // processes) * processes
        order = evaluation_order(self.loader.mixture.images_M, self.loader.sizes_M2)
        steps = [order[at : at + samples] for at in range(0, len(order), samples)]
        shares = [np.resize(step, (processes, math.ceil(len(step) / processes)))[get_rank()] for step in steps]
        for batch in self.loader.read(shares, with_samples=True):
            yield sample_list(Carried(batch))

    def _totals(self, micro_batches: list[Batch]) -> dict[str, Tensor]:
        counts = [self.split.setting.task.counts(batch) for batch in micro_batches]
        sums = {part: torch.as_tensor(sum(count[part] for count in counts)).float() for part in counts[0]}
        return {part: mmf_processes().sum(value.to(self.loader.device)).clamp(min=1) for part, value in sums.items()}


def mmf_processes() -> Processes:
    return Processes(get_rank(), get_world_size())


def sample_list(carried: Carried) -> SampleList:
    found = SampleList()
    found.add_field("sample_weight", carried.batch.weights)  # first: MMF takes the batch's size and device from it
    found.add_field(FIELD, carried)
    for name, target in targets_by_sample(carried.batch).items():
        found.add_field(name, target)
    return found


def targets_by_sample(batch: Batch) -> dict[str, Tensor]:
    """`targets`, for MMF's own losses and metrics, where the task has one row of them per sample (VQA, NLVR2)."""
    rows = [target for target in batch.targets.values() if target.shape[:1] == (len(batch),)]
    return {"targets": rows[0]} if len(rows) == len(batch.targets) == 1 else {}


def wrap_builder(own: str, name: str) -> type[BaseDatasetBuilder]:
    """A builder of MMF's with our builder's data, to be registered as `name`."""

    class Wrapped(BaseDatasetBuilder):
        def __init__(self) -> None:
            super().__init__(name)

        @classmethod
        def config_path(cls) -> str:
            return builder_yaml(own, name)

        def build(self, config: Any, dataset_type: str = "train", *args: Any, **kwargs: Any) -> None:
            """Nothing to fetch: the official files are read where they lie."""

        def load(self, config: Any, dataset_type: str = "train", *args: Any, **kwargs: Any) -> SplitDataset | AbsentDataset:
            setting = Setting.of_run()
            if dataset_type in setting.data.splits and own in setting.data.splits[dataset_type].parts:
                return SplitDataset(setting, own, name, dataset_type)
            return AbsentDataset(name, dataset_type)

        def build_dataloader(self, dataset_instance: Any, dataset_type: str, *args: Any, **kwargs: Any) -> Batches:
            return Batches(dataset_instance)

    Wrapped.__name__ = Wrapped.__qualname__ = f"Mmf_{own}"
    Wrapped.__doc__ = f"{own} of pixelbert_plugin, for MMF."
    return Wrapped
