"""The straight path from a configuration to results: `run` builds every part, then trains and evaluates.

YAML → RunConfig → registry → builder → samples → processors → batches → model → task.loss → trainer → evaluation.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import (
    build_builders,
    build_loader,
    build_model,
    build_optimizers,
    build_task,
    check_plan,
    choose_device,
    starting_checkpoint,
    versions,
)
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.engine import checkpoint, precision
from pixelbert_plugin.engine.checkpoint import Checkpoints, TrainState
from pixelbert_plugin.engine.evaluator import Evaluation, evaluate
from pixelbert_plugin.engine.events import Events, results_table
from pixelbert_plugin.engine.run_folder import RunFolder
from pixelbert_plugin.engine.scoring import evaluate_matrix, save_matrix, score_all_pairs
from pixelbert_plugin.engine.trainer import Trainer
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.options import RunConfig
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.weights import load_reported

logger = logging.getLogger(__name__)


def run(config: RunConfig, console: Console) -> dict[str, Any]:
    """Train and evaluate as `config.run_type` says. Returns what results.json got. Plugins must be loaded."""
    check_plan(config)
    device = choose_device(config)
    folder = RunFolder(Path(config.env.save_dir))
    is_training = "train" in config.splits()
    folder.claim(may_hold_run=not is_training or config.checkpoint.resume or config.env.overwrite)
    checkpoints = Checkpoints(folder.path / "checkpoints", config.checkpoint.max_to_keep)
    start, start_key = starting_checkpoint(config, checkpoints)
    content = checkpoint.read_content(start, start_key) if start else None

    builders = build_builders(config)
    data = {split: Mixture.build(builders, split) for split in config.splits()}
    task, processors = build_task(config, builders, data, content)
    model = build_model(config, task, processors).to(device)
    parts = Parts(config, console, device, folder, checkpoints, builders, data, task, processors, model)

    results: dict[str, Any] = {}
    if is_training:
        state = train(parts, start, start_key, content)
        results["training_seconds"] = round(state.seconds, 3)
        best = checkpoints.best()
        if best is None and state.best_update is not None:
            logger.warning("%s/best is not whole: the last weights are evaluated", checkpoints.folder)
        elif best is not None and state.best_update != state.update:
            model.load_state_dict(checkpoint.read_model(best))
    else:
        load_reported(model, checkpoint.read_model(start), f"{start_key}={start}")
        parts.precision.prepare(model, {})
    folder.add_results(results)
    for split in config.splits():
        if split != "train":
            figures = report(parts, split)
            folder.add_results(figures)  # at once: a failure on the next split must not lose them
            results |= figures
    say_where_all_lies(folder, console)
    return results


@dataclass
class Parts:
    """What `run` has built, for the steps below."""

    config: RunConfig
    console: Console
    device: torch.device
    folder: RunFolder
    checkpoints: Checkpoints
    builders: dict[str, Builder]
    data: dict[str, Mixture]  # by split
    task: Task
    processors: dict[str, Any]  # text, image, answers
    model: nn.Module
    loaders: dict[str, Loader] = field(default_factory=dict)  # for evaluation, by "split/dataset"
    is_task_fit: bool = False

    def __post_init__(self):
        self.precision = precision.choose(self.config, self.device)


def train(parts: Parts, start: Path | None, start_key: str, content: dict[str, Any] | None) -> TrainState:
    """Train from random weights, from pre-trained ones, or on from a checkpoint."""
    config, options, folder, model, task = parts.config, parts.config.training, parts.folder, parts.model, parts.task
    optimizers = build_optimizers(config, model)
    loader = build_loader(config, parts.data["train"], task, parts.processors, parts.device)
    state = TrainState()
    if config.checkpoint.resume and start is not None and start_key != "checkpoint.pretrained":
        state = checkpoint.load_training(start, content, model, optimizers, start_key)
        if start_key == "checkpoint.resume_file" and (later := parts.checkpoints.later_than(state.update)):
            raise UserError(
                f"{start_key}={str(start)!r}: {folder.path} holds {later[-1].name}, past its update {state.update}; "
                "choose another env.save_dir, so that two courses of training do not mix"
            )
        parts.checkpoints.link_best(state)
        loader.bad_images.update(state.skipped_images)
        parts.console.out(f"resuming from {start}, after update {state.update}", highlight=False)
    else:
        if config.checkpoint.resume:
            parts.console.out(f"{folder.path} holds no checkpoint yet: starting anew", highlight=False)
        if start is not None:
            heads = [f"heads.{name}." for name in task.heads()]
            load_reported(model, checkpoint.read_model(start), f"{start_key}={start}", heads, expected_unused=["heads."])
        if config.env.overwrite:
            folder.clear()
    parts.precision.prepare(model, optimizers)

    yaml = configuration.to_yaml(config)
    folder.write("config.yaml", yaml)
    events = Events(folder.path, state.update, parts.console)
    events.config(yaml, configuration.leaves(config))

    def save(state: TrainState) -> None:
        saved = {name: part.state_dict() for name, part in parts.processors.items() if hasattr(part, "state_dict")}
        parts.checkpoints.save(model, optimizers, state, yaml, saved, versions())

    trainer = Trainer(
        model=model,
        task=task,
        loader=loader,
        optimizers=optimizers,
        schedule=registry.build_component("scheduler", config.scheduler, "scheduler.params"),
        precision=parts.precision,
        events=events,
        options=options,
        state=state,
        evaluate=lambda: evaluate_split(parts, "val") if "val" in parts.data else {},
        save=save,
        criterion=options.early_stop.criterion or f"val/{config.datasets[0]}/{task.main_metric}",
    )
    try:
        state = trainer.train()
    finally:
        events.close()
    tell_cut_and_skipped(parts, loader, "train")
    return state


def evaluate_split(parts: Parts, split: str, is_final: bool = False) -> dict[str, Evaluation]:
    """Evaluate the model as it is on a split, by "split/dataset"; `is_final` once training is over."""
    config = parts.config
    pairs = config.evaluation.batch_size or config.training.micro_batch_size or config.training.batch_size
    batch_size = max(1, pairs // parts.task.pairs_per_sample)
    mixture = parts.data[split]
    if not parts.is_task_fit and hasattr(parts.task, "fit") and any(samples[0].answers for samples in mixture.parts.values()):
        fit_baseline(parts)
    evaluations = {}
    for name, samples in mixture.parts.items():
        key = f"{split}/{name}"
        if key not in parts.loaders:
            single = Mixture(split, {name: samples}, mixture.on_bad_image)
            parts.loaders[key] = build_loader(config, single, parts.task, parts.processors, parts.device)
        if getattr(parts.task, "scores_all_pairs", False):
            evaluations[key] = score_split(parts, split, key, batch_size, is_final)
        else:
            evaluations[key] = evaluate(parts.model, parts.task, parts.loaders[key], batch_size, parts.precision)
    return evaluations


def score_split(parts: Parts, split: str, key: str, batch_size: int, is_final: bool) -> Evaluation:
    """Score every pair of a split. At the end of a run finished blocks outlive a kill, and the matrix is written."""
    loader, name = parts.loaders[key], own_name(parts, key).replace("/", "_")
    blocks = parts.folder.path / "scores" / name if is_final else None
    limit = parts.task.max_val_images if split == "val" and not is_final else None
    matrix = score_all_pairs(parts.model, parts.task, loader, batch_size, parts.precision, blocks, limit)
    if is_final and parts.config.evaluation.predict:
        save_matrix(matrix, loader, parts.folder.path / "predictions" / f"{name}.safetensors")
    return evaluate_matrix(parts.task, loader, matrix)


def own_name(parts: Parts, key: str) -> str:
    """ "test-dev/vqa2" for "test/vqa2" where `use` chose so: the results and files of two test sets must not mix."""
    split, dataset = key.split("/")
    return f"{parts.builders[dataset].source_split(split)}/{dataset}"


def fit_baseline(parts: Parts) -> None:
    """Let the task learn its baseline from the training split; an evaluation alone may lack that split's files."""
    parts.is_task_fit = True
    try:
        parts.task.fit(parts.data.get("train") or Mixture.build(parts.builders, "train"))
    except UserError as error:
        logger.warning("the question-only prior is left out: %s", error)


def report(parts: Parts, split: str) -> dict[str, float]:
    """Evaluate a split, write its predictions, print its table. Returns metrics by "split/dataset/metric"."""
    results: dict[str, float] = {}
    for key, evaluation in evaluate_split(parts, split, is_final=True).items():
        name = own_name(parts, key)
        results |= {f"{name}/{metric}": value for metric, value in evaluation.metrics.items()}
        if parts.config.evaluation.predict and hasattr(parts.task, "predictions"):
            suffix, text = parts.task.predictions(evaluation.predicted)
            parts.folder.write(f"predictions/{name.replace('/', '_')}{suffix}", text)
        tell_cut_and_skipped(parts, parts.loaders[key], name)
    for table in results_table(results):
        parts.console.print(table)
    return results


def tell_cut_and_skipped(parts: Parts, loader: Loader, what: str) -> None:
    """Say how many texts were cut and which images were skipped: both change results."""
    if loader.truncated_texts:
        limit = f"processors.text.params.max_length={parts.processors['text'].config.max_length}"
        logger.warning("%s: %d texts were cut to %s tokens", what, loader.truncated_texts, limit)
    if loader.bad_images:
        name = f"skipped_images_{what.replace('/', '_')}.json"
        path = parts.folder.write_json(name, dict(loader.bad_images))
        logger.warning("%s: %d unreadable images were skipped; %s lists them", what, len(loader.bad_images), path)


def say_where_all_lies(folder: RunFolder, console: Console) -> None:
    for what, name in (
        ("results", "results.json"),
        ("predictions", "predictions"),
        ("checkpoints", "checkpoints"),
        ("config", "config.yaml"),
        ("log", "log.jsonl"),
        ("TensorBoard events", "tensorboard"),
    ):
        if (folder.path / name).exists():
            console.out(f"{what:<19} {folder.path / name}", highlight=False)
    if (folder.path / "tensorboard").exists():
        command = f"tensorboard --logdir {folder.path / 'tensorboard'}"
        console.out(f"{'watch it with':<19} {command}", highlight=False)
