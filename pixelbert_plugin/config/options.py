"""The options of a run: every key of the configuration but the components' own, with unit and default."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pixelbert_plugin.registry.schema import Component, ConfigError, FilePath, Sections, component, require

# options of `training` of which one is set, in one unit or the other: a later file, or the command line, replaces both
INTERVALS = (
    ("evaluation_interval", "evaluation_interval_epochs"),
    ("checkpoint_interval", "checkpoint_interval_epochs"),
)

COMMAND_LINE = "command line"  # the source of a value given as key=value


@dataclass(kw_only=True)
class ProcessorsConfig:
    text: Component = component("processor", "bert_tokenizer")  # words → input_ids
    image: Component = component("processor", "image")  # file → normalised float image on the device
    answers: Component = component("processor", "answers")  # annotators' answers → soft scores


@dataclass(kw_only=True)
class EarlyStopConfig:
    enabled: bool = False  # stop when `monitor` has not improved for `patience` evaluations
    patience: int = 5  # evaluations
    monitor: str | None = None  # "split/dataset/metric" that chooses checkpoints/best; none: the task's main metric
    minimize: bool = False  # whether a lower value is better

    def check(self) -> None:
        require(self, "patience", low=1)


@dataclass(kw_only=True)
class TrainingConfig:
    batch_size: int = 64  # pairs (one text with one image) per update, over all processes
    micro_batch_size: int | None = None  # pairs per forward and process; gradients accumulate. None: its share of batch_size
    texts_per_image: int | None = 1  # samples of one image kept together, so that its CNN runs once. None: all of them
    dataset_weights: dict[str, float] = field(default_factory=dict)  # share of a data set seen per epoch, by name. None: 1
    max_updates: int | None = None  # updates; the earlier of max_updates and max_epochs ends the run
    max_epochs: float | None = None  # passes over all pairs, counted in samples: another batch_size does not change them
    evaluation_interval: int | None = None  # updates between evaluations on val. None: only after the last update
    evaluation_interval_epochs: float | None = None  # the same in epochs (0.5: twice an epoch), instead
    checkpoint_interval: int | None = None  # updates between checkpoints. None: 1000, or as checkpoint_interval_epochs says
    checkpoint_interval_epochs: float | None = None  # the same in epochs, instead
    log_interval: int = 20  # updates between lines in log.jsonl and TensorBoard
    precision: str = "auto"  # fp32, tf32, bf16, fp16 or apex (docs/precision.md); auto: bf16 on a GPU that has it, else fp32
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    gradient_checkpointing: bool = False  # keep blocks' inputs alone; the backward pass computes blocks again (docs/memory.md)
    compile: Literal["none", "blocks"] = "none"  # blocks: torch.compile; dropout then draws other numbers (docs/speed.md)
    parallel: Literal["ddp", "fsdp"] = "ddp"  # over torchrun's processes: each has the whole model, or a shard of every block
    timeout_seconds: float = 1800  # how long to wait for another process, or for data (torch's default for gloo)
    seed: int = 1  # seeds weights, order, augmentation, pixel sampling and dropout
    num_workers: int = 2  # data-loader workers of each process, which read and decode; 0: in the process itself
    num_threads: int | None = None  # CPU threads of each process. None: torch's choice (torchrun sets 1 for several)
    bucket_by_size: bool = False  # images of like size, texts of like length together: less padding (reads image headers once)
    cache_features: bool = False  # a frozen CNN's features of each image are computed once, and kept in env.cache_dir
    max_grad_norm: float | None = None  # clip the global norm of all gradients. None: no clipping; the paper names none
    sanity_check: bool = True  # before update 1: every split's files, and one batch of each through model and metrics
    early_stop: EarlyStopConfig = field(default_factory=EarlyStopConfig)  # and what chooses the best checkpoint

    @property
    def checkpoint_updates(self) -> int | None:
        """`checkpoint_interval` with its default; None where the interval is in epochs."""
        is_default = self.checkpoint_interval is None and self.checkpoint_interval_epochs is None
        return 1000 if is_default else self.checkpoint_interval

    @property
    def evaluation_every(self) -> tuple[int | None, float | None]:
        """The interval in updates, or in epochs."""
        return self.evaluation_interval, self.evaluation_interval_epochs

    @property
    def checkpoint_every(self) -> tuple[int | None, float | None]:
        return self.checkpoint_updates, self.checkpoint_interval_epochs

    def check(self) -> None:
        require(self, "batch_size", "micro_batch_size", "texts_per_image", "max_updates", low=1)
        require(self, "evaluation_interval", "checkpoint_interval", "log_interval", low=1)
        require(self, "evaluation_interval_epochs", "checkpoint_interval_epochs", above=0)
        require(self, "max_epochs", "max_grad_norm", "timeout_seconds", above=0)
        for in_updates, in_epochs in INTERVALS:
            if getattr(self, in_updates) is not None and getattr(self, in_epochs) is not None:
                raise ValueError(
                    f"{in_epochs}: contradicts training.{in_updates}={getattr(self, in_updates)}; set one of the two"
                )
        if not all(0 < weight < math.inf for weight in self.dataset_weights.values()):
            raise ValueError("dataset_weights: must be above 0 and finite")
        require(self, "seed", low=0, high=2**63 - 1)
        require(self, "num_workers", low=0, high=1024)
        require(self, "num_threads", low=1, high=4096)


@dataclass(kw_only=True)
class EvaluationConfig:
    batch_size: int | None = None  # pairs per forward. None: training.micro_batch_size or training.batch_size
    predict: bool = True  # write predictions/<own split>_<dataset>.json, in the data set's official result format
    num_pictures: int = 8  # of a validation while training, drawn for TensorBoard with their answers. 0: none

    def check(self) -> None:
        require(self, "batch_size", low=1)
        require(self, "num_pictures", low=0)


@dataclass(kw_only=True)
class CheckpointConfig:
    resume: bool = False  # go on from the newest whole checkpoint of env.save_dir
    resume_file: FilePath | None = None  # a checkpoint folder to evaluate, to export, or to go on from, instead
    pretrained: FilePath | None = None  # a checkpoint folder or exported file whose weights (and no more) start the training
    max_to_keep: int = 2  # newest checkpoints kept beside the best one

    def check(self) -> None:
        require(self, "max_to_keep", low=1)


@dataclass(kw_only=True)
class EnvConfig:
    data_dir: FilePath = "data"  # folder of the official files; relative data paths start here
    cache_dir: FilePath | None = "~/.cache/pixelbert_plugin"  # parsed annotation files, image sizes. None: no cache
    max_features_gb: float = 100.0  # 10⁹ bytes that features of images, of all runs, may take there (training.cache_features)
    save_dir: FilePath | None = None  # run folder. None: save/<config's name>
    user_dir: FilePath | None = None  # plugin folder or file, relative to the file that names it
    overwrite: bool = False  # delete the run that save_dir holds; what this program did not write stays

    def check(self) -> None:
        require(self, "max_features_gb", low=0)

    @property
    def run_folder(self) -> Path:
        """`save_dir` as a path. Raises ConfigError where it is not set: a file names it, a RunConfig made in Python must."""
        if not self.save_dir:
            raise ConfigError(
                "env.save_dir", "is not set, and a RunConfig made in Python has no file to be named after; set it"
            )
        return Path(self.save_dir)

    @property
    def cache(self) -> Path | None:
        """`cache_dir` as a path."""
        return Path(self.cache_dir) if self.cache_dir else None


@dataclass(kw_only=True)
class RunConfig:
    """The whole configuration of a run; `pixelbert-run --print-config` shows it with the origin of each value."""

    run_type: str = "train_val"  # train, val, test, joined by "_"
    model: str = "pixelbert"  # registered model
    task: str = "vqa"  # registered task
    datasets: list[str] = field(default_factory=list)  # registered builders
    model_config: Sections = field(default_factory=dict)  # options by model name
    task_config: Sections = field(default_factory=dict)  # options by task name
    dataset_config: Sections = field(default_factory=dict)  # options by builder name
    precision_config: Sections = field(default_factory=dict)  # options by precision name
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])  # registered trackers, beside log.jsonl. []: none
    tracker_config: Sections = field(default_factory=dict)  # options by tracker name
    processors: ProcessorsConfig = field(default_factory=ProcessorsConfig)
    optimizer: dict[str, Component] = field(default_factory=dict)  # by parameter group of the model
    scheduler: Component = component("scheduler", "step")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    plugins: list[str] = field(default_factory=list)  # modules to import that register components

    def __post_init__(self) -> None:
        self.sources: dict[str, str] = {}  # by dotted key, where its value was set; none: the default
        self.saved_run: Path | None = None  # the folder of the run whose saved configuration this is

    def check(self) -> None:
        parts = self.run_type.split("_")
        if not set(parts) <= {"train", "val", "test"} or len(set(parts)) < len(parts):
            raise ValueError("run_type: must be train, val and test, each at most once, joined by _ (train_val)")
        if not self.datasets:
            raise ValueError("datasets: name at least one data set")
        if len(set(self.datasets)) < len(self.datasets):
            raise ValueError("datasets: a data set is duplicated")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError("trackers: a tracker is duplicated")

    def splits(self) -> list[str]:
        return self.run_type.split("_")

    @property
    def chosen_model(self) -> Component:
        """The model's name with its options."""
        return Component(self.model, self.model_config.get(self.model, {}))

    @property
    def chosen_task(self) -> Component:
        """The task's name with its options."""
        return Component(self.task, self.task_config.get(self.task, {}))

    @property
    def components(self) -> dict[str, Component]:
        """What a text and its images go through: "model", "task", and each of the processors."""
        return {"model": self.chosen_model, "task": self.chosen_task, **vars(self.processors)}

    def is_asked_now(self, key: str) -> bool:
        """Whether the command line gave the key, rather than a file."""
        return self.sources.get(key) == COMMAND_LINE
