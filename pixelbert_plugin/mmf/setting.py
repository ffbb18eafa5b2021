"""What MMF's parts of a run share: our typed configuration read out of MMF's, and the task and processors made from it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import build_model, learn_task
from pixelbert_plugin.checkpoint.start import PRETRAINED, Start
from pixelbert_plugin.config.contradictions import refuse_task
from pixelbert_plugin.config.options import EnvConfig, RunConfig
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.run_data import RunData, build_builders
from pixelbert_plugin.data.sampler import epoch_size
from pixelbert_plugin.distributed.processes import Processes
from pixelbert_plugin.evaluation.baseline import Baseline
from pixelbert_plugin.mmf.names import own_name
from pixelbert_plugin.mmf.nodes import plain
from pixelbert_plugin.registry import schema
from pixelbert_plugin.tasks.base import Task

KEY = "pixelbert_setting"  # in MMF's registry
MODEL_KEYS = {"model", "losses"}  # what MMF adds to a model's options
TRAINING_KEYS = ("num_workers", "texts_per_image", "bucket_by_size", "dataset_weights")
CACHE = "pixelbert_cache_dir"  # of `env`, whose cache_dir is MMF's own
LENGTH = "schedule_length"  # of `training`: our max_updates and max_epochs
TEST_WORDS = ("inference", "test", "predict")  # of MMF's run_type


@dataclass
class Setting:
    """The run as our own runner would build it, but for its trainer."""

    config: RunConfig
    update_frequency: int  # batches per update
    start: Start
    data: RunData
    task: Task
    processors: dict[str, Any]
    baseline: Baseline

    @classmethod
    def of_run(cls) -> "Setting":
        """The setting of MMF's present configuration, made once. Raises UserError for a wrong option."""
        from mmf.common.registry import registry as mmf_registry

        mmf_config = mmf_registry.get("config")
        config = read_config(mmf_config)
        known: Setting | None = mmf_registry.get(KEY, no_warning=True)
        if known is None or configuration.dump(known.config) != configuration.dump(config):
            known = cls.make(config, mmf_config.training.get("update_frequency", 1))
            mmf_registry.register(KEY, known)
        return known

    @classmethod
    def make(cls, config: RunConfig, update_frequency: int = 1) -> "Setting":
        pretrained = config.checkpoint.pretrained
        path = Path(pretrained) if pretrained else None
        start = Start.chosen(path, PRETRAINED, config.chosen_model, config.processors.image)
        data = RunData.of(build_builders(config.datasets, config.dataset_config, config.env), config.splits())
        task, processors = learn_task(config.chosen_task, config.processors, data, start)
        data = data.with_known_answers(processors.get("answers"), config.env.cache)
        refuse_task(config.task, task, config.training)
        return cls(config, update_frequency, start, data, task, processors, Baseline(task, data.answering))

    def make_model(self) -> nn.Module:
        """Our model with the weights that our runner would start from. A checkpoint's other head is left as it is made."""
        model = build_model(self.config.chosen_model, self.task, self.processors, self.config.training.seed)
        self.start.load_weights(model, self.task.heads(), is_training="train" in self.config.splits())
        return model

    def make_loader(self, split: str, name: str, device: torch.device, processes: Processes) -> Loader:
        """Batches of one data set's split, in our order."""
        training, cache = self.config.training, self.config.env.cache
        loaders = Loaders(training, cache, self.task, self.processors, device, processes.rank, processes.world_size)
        return loaders.of(self.data.single(split, name))

    def epoch_size(self, split: str, name: str) -> int:
        """Samples of one data set that MMF sees in an epoch: in training, its own at training.dataset_weights."""
        samples = len(self.data.splits[split].parts[name])
        return epoch_size(samples, self.config.training.dataset_weights.get(name, 1.0)) if split == "train" else samples

    @property
    def update_samples(self) -> int:
        """Samples of an update, of all processes."""
        return self.config.training.batch_size // self.task.pairs_per_sample * self.update_frequency

    def samples_per_epoch(self) -> int:
        """Of training, all data sets together."""
        return sum(self.epoch_size("train", name) for name in self.data.splits["train"].parts)


def position_after(updates: int, epoch_samples: int, update_samples: int) -> int:
    """Samples consumed by so many updates; each epoch's last one may be short."""
    epochs, rest = divmod(updates, math.ceil(epoch_samples / update_samples))
    return epochs * epoch_samples + rest * update_samples


def read_config(mmf_config: Any) -> RunConfig:
    """Our configuration out of MMF's, whose keys ours are wherever MMF has the concept. Raises UserError."""
    from mmf.utils.distributed import get_rank, get_world_size
    from mmf.utils.general import get_batch_size

    values = plain(mmf_config)
    model = own_name("model", values["model"])
    datasets = {name.strip(): own_name("builder", name.strip()) for name in values["datasets"].split(",")}
    options = values.get("model_config", {}).get(values["model"]) or {}
    training = {key: values["training"][key] for key in TRAINING_KEYS if key in values["training"]}
    training["batch_size"] = get_batch_size() * get_world_size()
    training |= schedule_length(values["training"])
    node = {
        "run_type": "_".join(splits_of(values["run_type"])),
        "model": model,
        "task": values.get("task", "vqa"),
        "datasets": list(datasets.values()),
        "model_config": {model: {key: value for key, value in options.items() if key not in MODEL_KEYS}},
        "task_config": values.get("task_config") or {},
        "dataset_config": {own: values["dataset_config"].get(name) or {} for name, own in datasets.items()},
        "processors": values.get("processors") or {},
        # MMF seeds each process with its rank added; ours share one order
        "training": {**training, "seed": max(0, values["training"]["seed"] - get_rank())},
        "evaluation": {"batch_size": values.get("evaluation", {}).get("batch_size")},
        "checkpoint": {"pretrained": _pretrained(values)},
        "env": {
            "data_dir": values["env"]["data_dir"],
            "save_dir": values["env"]["save_dir"],
            "cache_dir": values["env"].get(CACHE, EnvConfig().cache_dir),
        },
    }
    config = schema.merge(RunConfig, node)
    config.sources = {}
    registry.get("task", config.task, "task")
    return configuration.complete(config)


def schedule_length(training: dict[str, Any]) -> dict[str, Any]:
    """What schedules take for the length of the training: as our configuration had it, else as MMF's trainer will.

    MMF is given updates where we count epochs, and with both it goes by the epochs.
    """
    if training.get(LENGTH):
        return dict(training[LENGTH])
    epochs = training.get("max_epochs")
    return {"max_updates": None if epochs else training.get("max_updates"), "max_epochs": epochs}


def _pretrained(values: dict[str, Any]) -> str | None:
    """What a training starts from; of an evaluation, only where MMF does not load a checkpoint of its own."""
    checkpoint = values.get("checkpoint") or {}
    is_mmfs = "train" not in values["run_type"] and (checkpoint.get("resume") or checkpoint.get("resume_file"))
    return None if is_mmfs else checkpoint.get("pretrained")


def splits_of(run_type: str) -> list[str]:
    """Our splits that MMF's run_type takes: it looks for the words anywhere in it."""
    found = [split for split in ("train", "val") if split in run_type]
    return found + (["test"] if any(word in run_type for word in TEST_WORDS) else [])
