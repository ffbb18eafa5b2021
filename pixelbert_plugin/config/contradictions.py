"""Options that are right one by one and contradict each other, refused before any work.

What an option may be by itself stands in its dataclass's `check`.
"""

from pixelbert_plugin.config.options import RunConfig, TrainingConfig
from pixelbert_plugin.interfaces import LearnedTask, Normalization
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.system import launched

NEAR = 1e-3  # between two values of one mean or std: they are published with three digits


def refuse(config: RunConfig) -> None:
    """Raise ConfigError for the first contradiction between options of a run."""
    training, paths = config.training, config.checkpoint
    processes = launched.number("WORLD_SIZE", 1)
    if training.batch_size < processes:
        raise ConfigError(
            "training.batch_size",
            f"{training.batch_size} pairs per update are fewer than the {processes} processes that share them",
        )
    if training.parallel == "fsdp" and training.precision == "apex":
        raise ConfigError("training.parallel", "'fsdp' shards float32 weights, which Apex would cast; use ddp, or fp16 or bf16")
    for name in training.dataset_weights:
        if name not in config.datasets:
            raise ConfigError(f"training.dataset_weights.{name}", f"is not among datasets={','.join(config.datasets)}")
    if "train" in config.splits():
        _refuse_in_training(config)
    elif paths.resume and config.is_asked_now("checkpoint.resume"):
        raise ConfigError("checkpoint.resume", "is for training; run_type has no train in it")


def _refuse_in_training(config: RunConfig) -> None:
    training, paths = config.training, config.checkpoint
    if training.max_updates is None and training.max_epochs is None:
        raise ConfigError("training.max_updates", "is not set, and neither is training.max_epochs; set one")
    if paths.resume and config.env.overwrite:
        raise ConfigError("env.overwrite", "contradicts checkpoint.resume=true; set one of the two")
    if training.early_stop.enabled and "val" not in config.splits():
        raise ConfigError("training.early_stop.enabled", "needs val in run_type (train_val), to have a metric to monitor")
    if paths.resume_file and not paths.resume:
        raise ConfigError("checkpoint.resume_file", "needs checkpoint.resume=true to train on; or use checkpoint.pretrained")


def refuse_task(name: str, task: LearnedTask, training: TrainingConfig) -> None:
    """Raise ConfigError where an update or a forward would take a part of the task's samples."""
    for key in ("batch_size", "micro_batch_size"):
        pairs = getattr(training, key)
        if pairs is not None and pairs % task.pairs_per_sample:
            raise ConfigError(
                f"training.{key}",
                f"{pairs} pairs: a sample of the task {name!r} is {task.pairs_per_sample} of them; give a multiple",
            )


def refuse_groups(model: str, groups: list[str], optimizers: list[str]) -> None:
    """Raise ConfigError where the optimizers are not those of the model's parameter groups, one each."""
    for name in optimizers:
        if name not in groups:
            raise ConfigError(f"optimizer.{name}", f"{model} has no such parameter group (it has {', '.join(groups)})")
    for name in groups:
        if name not in optimizers:
            raise ConfigError(
                f"optimizer.{name}", "is not set; every parameter group needs an optimizer, such as {type: adamw}"
            )


def refuse_features(config: RunConfig, has_frozen_encoder: bool, augments: bool) -> None:
    """Raise ConfigError where an image's features would not stay as they are, or there is no folder to keep them in."""
    key = "training.cache_features"
    if config.env.cache is None:
        raise ConfigError(key, "true needs a folder, and env.cache_dir is null; set env.cache_dir=PATH")
    if not has_frozen_encoder:
        raise ConfigError(
            key,
            f"true, but the model {config.model!r} trains its image encoder, or has none; freeze it "
            "(model_config.pixelbert.freeze_image_encoder=true), or set training.cache_features=false",
        )
    if augments and "train" in config.splits():
        raise ConfigError(
            key,
            f"true, but processors.image ({config.processors.image.type!r}) may change an image whenever it is trained on; "
            "leave out horizontal_flip, min_crop and color_jitter, or set training.cache_features=false",
        )


def refuse_normalization(trained_on: Normalization | None, given: Normalization | None) -> None:
    """Raise ConfigError where images are not normalised as those were that the model's weights were trained on."""
    for name, wanted, found in zip(("mean", "std"), trained_on or (), given or (), strict=False):
        if any(abs(a - b) > NEAR for a, b in zip(wanted, found, strict=True)):
            raise ConfigError(
                f"processors.image.params.{name}",
                f"{list(found)}, but the image encoder's weights were trained on images of {list(wanted)}; set it so",
            )
