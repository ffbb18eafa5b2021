"""Our configuration as MMF's: the same keys wherever both have the concept, and a refusal where MMF's trainer has none."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.mmf.names import PREFIX, mmf_name, registered
from pixelbert_plugin.mmf.setting import CACHE, LENGTH, Setting
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.training.length import Length

NEVER = 10**9  # updates: MMF evaluates and saves at multiples of a number
ALIKE = ("seed", "num_workers", "log_interval")
OURS = ("texts_per_image", "bucket_by_size", "dataset_weights")  # read by our builders
MMF_FILES = (".ckpt", ".pth", ".pt")
REFUSED = {  # options of ours that MMF's trainer has nothing for
    "training.parallel": "MMF has no FSDP; with several GPUs it takes DDP",
    "training.timeout_seconds": "MMF has no such limit",
    "training.cache_features": "features of a frozen CNN are kept by pixelbert-run alone",
    "training.gradient_checkpointing": "MMF has no such option; a smaller training.micro_batch_size needs less memory too",
    "training.compile": "MMF's trainer compiles no blocks",
    "precision_config": "MMF's trainer knows float32, and float16 by training.precision=fp16",
    "env.overwrite": "choose another env.save_dir",
}


def to_mmf(config: RunConfig) -> dict[str, Any]:
    """What MMF is to be given for a run of ours, checked and complete. Raises ConfigError for what it cannot do."""
    for key, reason in REFUSED.items():
        if any(name == key or name.startswith(f"{key}.") for name in config.sources):
            raise ConfigError(key, f"is not supported in MMF: {reason}")
    file = config.checkpoint.resume_file
    if file and (Path(file).is_dir() or Path(file).suffix not in MMF_FILES):
        raise ConfigError("checkpoint.resume_file", f"{file!r} is no file of MMF's; what is ours is checkpoint.pretrained here")
    values, model = configuration.dump(config), mmf_name("model", config.model)
    datasets, env = {name: mmf_name("builder", name) for name in config.datasets}, config.env
    evaluation: dict[str, Any] = {"metrics": ["pixelbert"], "reporter": {"type": "pixelbert", "params": {}}}
    evaluation["batch_size"] = config.evaluation.batch_size
    if "evaluation.predict" in config.sources:  # MMF gives either predictions or metrics
        evaluation["predict"] = config.evaluation.predict
    return {
        "run_type": config.run_type,
        "model": model,
        "task": config.task,
        "datasets": ",".join(datasets.values()),
        "model_config": {model: {**values["model_config"][config.model], "losses": []}},
        "task_config": {config.task: values["task_config"][config.task]},
        "dataset_config": {name: values["dataset_config"][own] for own, name in datasets.items()},
        "processors": values["processors"],
        "optimizer": {"type": "pixelbert", "params": values["optimizer"]},
        "scheduler": {"type": mmf_name("scheduler", config.scheduler.type), "params": values["scheduler"]["params"]},
        "training": _training(config, datasets),
        "evaluation": evaluation,
        "checkpoint": {
            "resume": config.checkpoint.resume,
            "resume_file": _plain(config.checkpoint.resume_file),
            "pretrained": _plain(config.checkpoint.pretrained),
            "max_to_keep": config.checkpoint.max_to_keep,
        },
        "env": {"data_dir": _plain(env.data_dir), "save_dir": _plain(env.save_dir), CACHE: _plain(env.cache_dir)},
        "plugins": config.plugins,
    }


def _plain(path: str | None) -> str | None:
    """A path with the home folder in it, as MMF reads no ~."""
    return None if path is None else str(path)


def _training(config: RunConfig, datasets: dict[str, str]) -> dict[str, Any]:
    training, values = config.training, configuration.dump(config)["training"]
    micro = training.micro_batch_size or training.batch_size
    if training.batch_size % micro:
        raise ConfigError(
            "training.micro_batch_size", f"{micro}: MMF needs a divisor of training.batch_size={training.batch_size}"
        )
    if training.precision not in ("auto", "fp32", "fp16"):
        raise ConfigError("training.precision", f"{training.precision!r} is not supported in MMF; use fp32, or fp16 on a GPU")
    found = {key: values[key] for key in (*ALIKE, *OURS)}
    has_val = "val" in config.splits()  # MMF would evaluate on val whatever run_type says
    interval = _interval(config, training.evaluation_interval, training.evaluation_interval_epochs) if has_val else NEVER
    found |= {
        "max_updates": _max_updates(config),
        "max_epochs": None,
        LENGTH: {"max_updates": training.max_updates, "max_epochs": training.max_epochs},
        "batch_size": micro,
        "update_frequency": training.batch_size // micro,
        "evaluation_interval": interval,
        "checkpoint_interval": _interval(config, training.checkpoint_updates, training.checkpoint_interval_epochs),
        "fp16": training.precision == "fp16",
        "lr_scheduler": True,
        "clip_gradients": training.max_grad_norm is not None,
        "clip_norm_mode": "all",
        "max_grad_l2_norm": training.max_grad_norm,
        "early_stop": _early_stop(config, datasets, interval),
    }
    if training.device == "cpu":
        found["device"] = "cpu"
    return found


def _max_updates(config: RunConfig) -> int | None:
    """How many updates our own runner would make: MMF lets max_epochs win, and counts whole epochs."""
    if config.training.max_epochs is None or "train" not in config.splits():
        return config.training.max_updates
    return _length(config).total_updates()


def _interval(config: RunConfig, updates: int | None, epochs: float | None) -> int:
    """An interval in updates, as MMF counts them; one in epochs is rounded."""
    if epochs is None or "train" not in config.splits():
        return updates or NEVER
    length = _length(config)
    return max(1, round(epochs * math.ceil(length.epoch_samples / length.batch_samples)))


def _length(config: RunConfig) -> Length:
    setting = Setting.make(config)
    batch_samples = config.training.batch_size // setting.task.pairs_per_sample
    return Length.of(config.training, setting.samples_per_epoch(), batch_samples)


def _early_stop(config: RunConfig, datasets: dict[str, str], interval: int) -> dict[str, Any]:
    """MMF's monitor, which chooses best.ckpt, and its patience, which it counts in updates."""
    early = config.training.early_stop
    found: dict[str, Any] = {"enabled": early.enabled, "minimize": early.minimize, "patience": early.patience * interval}
    monitor = early.monitor or _main_monitor(config)
    if monitor is None:
        return {**found, "criteria": "val/total_loss", "minimize": True}
    split, _, rest = monitor.partition("/")
    dataset, _, metric = rest.partition("/")
    if split != "val" or dataset not in datasets or not metric:
        raise ConfigError("training.early_stop.monitor", f"{monitor!r}: must be val/<data set>/<metric>")
    return {**found, "criteria": f"val/{datasets[dataset]}/pixelbert/{metric}"}


def _main_monitor(config: RunConfig) -> str | None:
    """What our own runner would choose by; None where MMF's evaluation does not compute it."""
    task = registry.get("task", config.task)
    if task.scores_all_pairs:
        return None
    metric = getattr(task, "main_metric", None)  # of the class: a task whose options decide has it only once it is built
    return f"val/{config.datasets[0]}/{metric}" if isinstance(metric, str) else None


def take_mmfs(values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Move out of `values` what is MMF's alone (`known`: MMF's defaults), its own optimizers and schedulers too. What is
    left names data sets and the model as our registry does."""
    found = _take_unknown(values, known, RunConfig)
    for section in ("model_config", "dataset_config"):
        if isinstance(values.get(section), dict):
            values[section] = {str(name).removeprefix(PREFIX): options for name, options in values[section].items()}
    if isinstance(values.get("model"), str):
        values["model"] = values["model"].removeprefix(PREFIX)
    names = values.get("datasets")
    if names:
        listed = names if isinstance(names, list) else str(names).split(",")
        values["datasets"] = [str(name).strip().removeprefix(PREFIX) for name in listed]
    optimizer, scheduler = values.get("optimizer"), values.get("scheduler")
    if isinstance(optimizer, dict) and isinstance(optimizer.get("type"), str):
        found["optimizer"] = values.pop("optimizer")
    if isinstance(scheduler, dict) and scheduler.get("type") in registered("scheduler"):
        found["scheduler"] = values.pop("scheduler")
    return found


def _take_unknown(values: dict[str, Any], known: dict[str, Any], schema: type) -> dict[str, Any]:
    own, found = {field.name: field.type for field in dataclasses.fields(schema)}, {}
    for key in list(values):
        if key not in own and key in known:
            found[key] = values.pop(key)
        elif isinstance(values[key], dict) and isinstance(known.get(key), dict):
            section = own.get(key)
            if isinstance(section, type) and dataclasses.is_dataclass(section):
                found[key] = _take_unknown(values[key], known[key], section)
    return {key: value for key, value in found.items() if value != {}}


def merged(made: dict[str, Any], mmfs: dict[str, Any]) -> dict[str, Any]:
    """What was made of our options with MMF's own put over it; an optimizer or scheduler as a whole."""
    found = dict(made)
    for key, value in mmfs.items():
        is_inner = isinstance(value, dict) and isinstance(found.get(key), dict) and key not in ("optimizer", "scheduler")
        found[key] = merged(found[key], value) if is_inner else value
    return found


def refuse_ours(save_dir: str) -> None:
    """MMF writes into a folder whatever it holds: keep it out of a run of pixelbert-run."""
    if (Path(save_dir) / "log.jsonl").exists():
        raise UserError(
            f"env.save_dir={save_dir!r}: holds a run of pixelbert-run, whose files MMF would replace; choose another"
        )
