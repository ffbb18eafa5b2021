"""The straight path from a configuration to results: `run` builds every part, then trains and evaluates.

YAML → RunConfig → registry → builder → samples → processors → batches → model → task.loss → trainer → evaluation.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import build_optimizers, choose_convolutions, choose_device, portable, versions
from pixelbert_plugin.checkpoint import export as export_file
from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.checkpoint.checkpoints import CheckpointMetadata, Checkpoints, TrainState
from pixelbert_plugin.checkpoint.start import PRETRAINED, Start, finished_checkpoint
from pixelbert_plugin.config import contradictions, saved
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.fingerprint import fingerprints
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.vocabularies import processor_states
from pixelbert_plugin.distributed.parallel import Losses, shard, wrap
from pixelbert_plugin.distributed.processes import connected
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.evaluation.report import report, tell_skipped
from pixelbert_plugin.evaluation.split_evaluator import SplitEvaluator
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.loading import load
from pixelbert_plugin.parts import Job, Parts, prepare
from pixelbert_plugin.system.console import make_tolerant
from pixelbert_plugin.training import sanity
from pixelbert_plugin.training.compilation import Compilation, compile_blocks
from pixelbert_plugin.training.data_remarks import tell_changes, tell_features, tell_survey
from pixelbert_plugin.training.length import go_on, over_training
from pixelbert_plugin.training.overview import overview
from pixelbert_plugin.training.recomputation import recompute_blocks
from pixelbert_plugin.training.run_folder import RunFolder
from pixelbert_plugin.training.step import Step
from pixelbert_plugin.training.stop import StopSignal
from pixelbert_plugin.training.trackers import Trackers, build_trackers
from pixelbert_plugin.training.tracking import Events, NoEvents
from pixelbert_plugin.training.trainer import Trainer
from pixelbert_plugin.training.watched import looker_of, tracked_run

logger = logging.getLogger(__name__)


def run(config: RunConfig | str | Path, console: Console | None = None, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train and evaluate as `run_type` says. Returns what results.json got, `{"val/vqa2/accuracy": 0.7, …}`.

    `config`: the path of a YAML file, with `key=value` overrides as on the command line; or a RunConfig, whose components'
    defaults are filled in. Its plugins are loaded. `console`: where tables and progress go; None: the standard output.
    Raises UserError, in one line, for wrong input. Under torchrun every process calls it; only the main one writes, prints and
    returns metrics of its own.
    """
    if console is not None and not isinstance(console, Console):
        raise UserError(f"console={console!r:.80}: is no rich.console.Console; key=value options are given as overrides=[…]")
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        raise UserError(f'overrides={overrides!r:.200}: must be a list of texts, as in overrides=["training.seed=1"]')
    if isinstance(overrides, Mapping):
        raise UserError(
            f'overrides={overrides!r:.200}: is a mapping; give a list of texts, as in overrides=["training.seed=1"]'
        )
    if not isinstance(config, RunConfig | str | Path):
        raise UserError(f"config={config!r:.80}: must be a RunConfig or the path of a YAML file")
    config = configuration.resolve(config, overrides)
    with configuration.naming_sources(config.sources):
        return train_and_evaluate(config, console or Console())


def train_and_evaluate(config: RunConfig, console: Console) -> dict[str, Any]:
    """`run` of a configuration that is complete."""
    contradictions.refuse(config)
    trackers = build_trackers(config)
    with working(config, console, RunFolder(config.env.run_folder)) as job:
        parts, start = prepare(config, job)
        tell_survey(parts)
        evaluator = SplitEvaluator(parts, config.evaluation, config.components)
        results: dict[str, Any] = {}
        events: Events | NoEvents = NoEvents()
        with ExitStack() as closing:
            if "train" in config.splits():
                closing.callback(trackers.close)
                state, events = train(config, parts, start, evaluator, trackers)
                results["training_seconds"] = round(state.seconds, 3)
                take_best_weights(parts, state)
            else:
                start.load_weights(parts.model, parts.task.heads(), is_training=False)
                for difference in saved.differences(start.content.get("config", ""), configuration.dump(config)):
                    logger.warning("%s: evaluated with %s", start, difference)
                parts.precision.prepare(parts.model, {})
                tell_features(parts)
            job.processes.on_main(lambda: job.folder.add_results(results))
            for split in config.splits():
                if split != "train":
                    metrics = report(evaluator, split)
                    events.final(metrics)
                    results |= metrics
        say_where_all_lies(job.folder, job.console)
        return results


@contextmanager
def working(config: RunConfig, console: Console, folder: RunFolder) -> Iterator[Job]:
    """The run's device, processes, signals and folder while it lasts."""
    make_tolerant(console)
    training = config.training
    device = choose_device(training)
    stop = StopSignal()
    with (
        stop.handled(),
        connected(device, training.timeout_seconds, training.parallel == "fsdp") as processes,
        folder,
    ):
        if not processes.is_main:
            console = Console(quiet=True)
            logging.getLogger(__package__).setLevel(logging.ERROR)
            for own in ("loader", "image_features"):  # of its own workers and images
                logging.getLogger(f"pixelbert_plugin.data.{own}").setLevel(logging.WARNING)
        yield Job(console, device, processes, stop, folder)


def monitor_of(config: RunConfig, parts: Parts) -> str:
    """The metric that chooses the best checkpoint."""
    return config.training.early_stop.monitor or f"val/{config.datasets[0]}/{parts.task.main_metric}"


def train(
    config: RunConfig, parts: Parts, start: Start, evaluator: SplitEvaluator, trackers: Trackers
) -> tuple[TrainState, Events | NoEvents]:
    """Train from random weights, from pre-trained ones, or on from a checkpoint. Returns the events too, for what follows."""
    options, job, model = parts.training, parts.job, parts.model
    optimizers, compilation, loader = prepare_training(config, parts, start)
    state = start.load_training(model, optimizers, parts.precision)
    if start.is_resumed and not job.processes.on_main(lambda: parts.checkpoints.holds_best(state)):
        state.forget_best()
    monitor = monitor_of(config, parts)
    tell_features(parts)
    if options.sanity_check:
        sanity.try_all(parts, evaluator.baseline, monitor)
    job.processes.on_main(lambda: enter_folder(config, parts, start, state))
    if job.processes.is_main:
        loader.count_on(state.skipped_images)

    yaml = configuration.to_yaml(config, parts.checkpoints.folder / "each")
    processors = processor_states(parts.processors)
    data = job.processes.on_main(lambda: fingerprints(parts.data.splits))
    if start.is_resumed and job.processes.is_main:
        tell_changes(parts, start.content, data, config.processors)
    rebuilt = portable(config.components, {"model": model, **parts.processors})
    metadata = CheckpointMetadata(yaml, processors, versions(), start.sources, data, rebuilt)
    evaluated = state.update - state.is_evaluation_due  # what is due is evaluated again
    events: Events | NoEvents = NoEvents()
    if job.processes.is_main:
        pictures = config.evaluation.num_pictures
        looker = looker_of(parts, evaluator, pictures)
        go_on(state, len(loader))
        begins = (state.update, state.position or 0, tuple(config.trackers))
        job.console.print(overview(parts, len(loader), *begins))
        events = Events(job.folder.path, state.update, evaluated, job.console, trackers, pictures, looker)
        events.begin(tracked_run(config, parts, state, yaml, monitor))
    trainer = Trainer(
        model=model,
        step=build_step(config, parts, optimizers),
        loader=loader,
        stop=job.stop,
        events=events,
        options=options,
        state=state,
        evaluate=evaluator.validate if "val" in parts.data.splits else None,
        save=lambda state: parts.checkpoints.save(model, optimizers, parts.precision, state, metadata),
        settle=parts.checkpoints.settle,
        record=parts.checkpoints.record,
        monitor=monitor,
        compilation=compilation,
    )
    try:
        with parts.checkpoints.beside_training(), nullcontext() if compilation is None else compilation.going_on():
            state = trainer.train()
    finally:
        events.flush()
        if compilation is not None:
            logger.info("%s", compilation)
    tell_skipped(job, loader, "train")
    return state, events


def prepare_training(
    config: RunConfig, parts: Parts, start: Start
) -> tuple[dict[str, torch.optim.Optimizer], Compilation | None, Loader]:
    """The model made ready to be trained, its weights those of the start; its optimizers, compiled blocks and batches."""
    options, model = parts.training, parts.model
    start.load_weights(model, parts.task.heads(), is_training=True)
    if options.parallel == "fsdp":
        if parts.loaders.features is not None:
            parts.loaders.features.set_apart()
        shard(model)
    optimizers = build_optimizers(config.optimizer, model)
    parts.precision.prepare(model, optimizers)
    compilation = compiled(config, parts) if options.compile == "blocks" else None
    if options.gradient_checkpointing:
        recompute_blocks(model, config.model)
    loader = parts.loaders.of(parts.data.splits["train"])
    is_known = parts.task.images_per_sample == 1 and not parts.processors["image"].augments
    choose_convolutions(parts.job.device, loader.sizes_M2 if is_known else None)
    return optimizers, compilation, loader


def build_step(config: RunConfig, parts: Parts, optimizers: dict[str, torch.optim.Optimizer]) -> Step:
    options, processes = parts.training, parts.job.processes
    return Step(
        parallel=wrap(options.parallel, Losses(parts.model, parts.task, parts.precision), processes),
        task=parts.task,
        optimizers=optimizers,
        schedule=over_training(registry.build_component("scheduler", config.scheduler, "scheduler.params"), options),
        precision=parts.precision,
        processes=processes,
        seed=options.seed,
        max_grad_norm=options.max_grad_norm,
    )


def compiled(config: RunConfig, parts: Parts) -> Compilation:
    """`training.compile: blocks`, but for an encoder whose features are kept: an evaluation has the same ones."""
    has_features = parts.loaders.features is not None
    kept = cast(Model, parts.model).frozen_image_encoder if has_features else None
    return compile_blocks(parts.model, config.model, parts.job.device, but=kept)


def enter_folder(config: RunConfig, parts: Parts, start: Start, state: TrainState) -> None:
    """Make the run's folder this run's; nothing in it was changed before."""
    folder, console, checkpoints = parts.job.folder, parts.job.console, parts.checkpoints
    folder.require_own_config()
    if start.is_resumed:
        if start.key == "checkpoint.resume_file" and (later := checkpoints.later_than(state.update)):
            raise UserError(
                f"{start.key}={str(start.path)!r}: {folder.path} holds {later[-1].name}, past its update {state.update}; "
                "choose another env.save_dir, so that two courses of training do not mix"
            )
        checkpoints.link_best(state)
        console.out(f"resuming from {start.path}, after update {state.update}", highlight=False)
    elif config.checkpoint.resume:
        console.out(f"{folder.path} holds no checkpoint yet: starting anew", highlight=False)
    if start.is_pretrained:
        console.out(f"starting from {restore.source_name(start.sources[-1])}", highlight=False)
    elif not start.is_resumed and config.saved_run and (former := restore.started_from(config.saved_run)):
        logger.warning("the run of %s started from %s; this one starts from random weights", config.saved_run, former)
    if config.env.overwrite:
        folder.clear()
    folder.write("config.yaml", configuration.to_yaml(config, folder.path))


def take_best_weights(parts: Parts, state: TrainState) -> None:
    """After training, the weights of the best checkpoint, where those at the end are not. Raises UserError if it is damaged."""
    best = state.best_update
    if best is not None and best != state.update:
        restore.load_best(parts.job.processes.on_main(lambda: parts.checkpoints.of(best)), parts.model)


def export(config: RunConfig | str | Path, target: Path, form: str = "safetensors", dtype: str = "fp32") -> Path:
    """The run's best checkpoint, or `checkpoint.resume_file`, in one of the command's formats.

    safetensors: one file of weights in `dtype`, fp32 or bf16, see checkpoint/export.py. hf: a folder for transformers, see
    huggingface/conversion.py. pt2, onnx: the computation in one file, with a .json beside it, see graphs/. Raises UserError.
    """
    config = configuration.resolve(config)
    path, key = _finished(config)
    if form == "safetensors":
        return export_file.write(target, restore.read_model(path), restore.read_content(path, key), dtype)
    loaded = load(path, user_dir=config.env.user_dir)
    if form != "hf":
        from pixelbert_plugin import graphs

        return graphs.write(loaded, target, form)
    from pixelbert_plugin import huggingface  # transformers' models take seconds to import
    from pixelbert_plugin.huggingface.card import card

    content, run_folder = export_file.portable(restore.read_content(path, key)), config.env.run_folder
    results = RunFolder(run_folder).read_results() if key == "env.save_dir" else {}  # of another checkpoint there are none here
    return huggingface.write(loaded, target, card(loaded, content, results, run_folder.resolve().name))


def export_encoders(config: RunConfig | str | Path, folder: Path) -> dict[str, str]:
    """CNN and transformer of the same checkpoint for other programs; see LoadedModel.save_pretrained."""
    config = configuration.resolve(config)
    return load(_finished(config)[0], user_dir=config.env.user_dir).save_pretrained(folder)


def _finished(config: RunConfig) -> tuple[Path, str]:
    """The checkpoint that is the outcome of a run, and the key that names it. Raises UserError where there is none."""
    with configuration.naming_sources(config.sources):
        checkpoints = Checkpoints(config.env.run_folder / "checkpoints", config.checkpoint.max_to_keep)
        return finished_checkpoint(config.checkpoint, checkpoints, config.is_asked_now(PRETRAINED))


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
