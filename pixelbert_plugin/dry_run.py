"""`pixelbert-run --dry-run`: all that a training does until its first update, and that update, with no file of the run.

The start's table, the try before update 1, shapes, an estimate of memory, and the time of one update on the data that it would
have. Only the cache of parsed annotation files may be written.
"""

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.config import contradictions
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.evaluation.split_evaluator import SplitEvaluator
from pixelbert_plugin.parts import Parts, prepare
from pixelbert_plugin.planning import memory
from pixelbert_plugin.planning.batches import Shape
from pixelbert_plugin.planning.cards import GB, Card
from pixelbert_plugin.planning.planner import choose_precision
from pixelbert_plugin.planning.simulation import Simulation
from pixelbert_plugin.run import build_step, monitor_of, prepare_training, working
from pixelbert_plugin.system.progress import spoken
from pixelbert_plugin.training import sanity
from pixelbert_plugin.training.data_remarks import tell_survey
from pixelbert_plugin.training.length import Length, go_on, samples_of
from pixelbert_plugin.training.overview import overview
from pixelbert_plugin.training.run_folder import HOLDS_A_RUN, RunFolder
from pixelbert_plugin.training.trackers import build_trackers
from pixelbert_plugin.types import Batch, ModelOutput

logger = logging.getLogger(__name__)
SHORT = 30.0  # seconds of an update, up to which a second one is made: the first makes caches and loads kernels


class Untouched(RunFolder):
    """A run's folder that is only named, and read where a training would go on."""

    def claim(self, may_hold_run: bool, is_training: bool, job_id: str | None = None) -> bool:
        held = [name for name in HOLDS_A_RUN if (self.path / name).exists()]
        if held and not may_hold_run:
            logger.warning(
                "env.save_dir=%r: holds a run already (%s): the run itself will ask for checkpoint.resume=true, "
                "env.overwrite=true, or another env.save_dir",
                *(str(self.path), ", ".join(held)),
            )
        return False


def dry_run(config: RunConfig, console: Console) -> dict[str, Any]:
    """Tells all of it on the console. Returns the figures: `update_seconds`, `data_seconds`, `loss`, `estimated_bytes` (None
    where there is no estimate), `measured_bytes`. Raises UserError as the run itself would."""
    contradictions.refuse(config)
    if "train" not in config.splits():
        raise UserError(f"--dry-run: is of a training; run_type={config.run_type} has no train in it")
    build_trackers(config)  # which none is begun of
    with working(config, console, Untouched(config.env.run_folder)) as job:
        parts, start = prepare(config, job)
        tell_survey(parts)
        evaluator = SplitEvaluator(parts, config.evaluation, config.components)
        optimizers, _, loader = prepare_training(config, parts, start)
        state = start.load_training(parts.model, optimizers, parts.precision)
        go_on(state, len(loader))
        position = state.position or 0
        if parts.training.sanity_check:
            sanity.try_all(parts, evaluator.baseline, monitor_of(config, parts))
        job.console.print(overview(parts, len(loader), state.update, position, tuple(config.trackers)))
        step = build_step(config, parts, optimizers)
        shapes: dict[str, tuple[int, ...]] = {}
        batch_samples, micro = samples_of(parts.training, parts.task.pairs_per_sample)
        updates = loader.updates(position, batch_samples, micro, parts.training.texts_per_image)
        parts.model.train()
        figures: dict[str, Any] = {}
        with seen(parts.model, shapes):
            for _ in range(2):
                began = time.perf_counter()
                micro_batches, samples = next(updates)
                waited = time.perf_counter() - began
                losses, norm = step(micro_batches, state.update + 1, position / len(loader), loader.one_ahead)
                loss = float(parts.job.processes.sum(torch.stack(list(losses.values()))).sum())  # waits for the device
                took = time.perf_counter() - began
                first = figures.setdefault("first_update_seconds", took)
                figures |= {"update_seconds": took, "data_seconds": waited, "loss": loss, "grad_norm": float(norm)}
                state.update += 1
                position += samples
                if first > SHORT:
                    break
        estimate = estimated(config, parts, shapes, len(micro_batches) > 1)
        figures |= {"estimated_bytes": estimate, "measured_bytes": measured(parts.job.device), "shapes": shapes}
        job.console.print()
        job.console.print(_shapes(shapes))
        job.console.print()
        job.console.print(_figures(parts, figures, len(loader), batch_samples, state))
    return figures


@contextmanager
def seen(model: torch.nn.Module, shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Note the shapes of what goes into the model and comes out of it, of the batch whose sequences have most in them."""

    def note(_module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], output: ModelOutput) -> None:
        batch: Batch = arguments[0] if arguments else keywords["batch"]
        found: dict[str, tuple[int, ...]] = {"texts, tokens": tuple(batch.input_ids.shape)}
        if isinstance(batch.images, Tensor) and batch.images.dim() == 4:
            found["images, channels, height, width"] = tuple(batch.images.shape)
        found["rows, columns of the CNN's grid"] = output.grid
        found["sequences, pixels in them"] = tuple(output.pixel_mask.shape)
        found["sequences, tokens and pixels"] = (len(output.pixel_mask), batch.input_ids.shape[1] + output.pixel_mask.shape[1])
        found |= {f"logits of {name}": tuple(value.shape) for name, value in output.logits.items()}
        found["samples"] = (len(batch),)
        if not shapes or _size(found) > _size(shapes):
            shapes.clear()
            shapes.update(found)

    handle = model.register_forward_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _size(shapes: dict[str, tuple[int, ...]]) -> int:
    sequences, length = shapes["sequences, tokens and pixels"]
    return sequences * length


def estimated(config: RunConfig, parts: Parts, shapes: dict[str, tuple[int, ...]], accumulates: bool) -> int | None:
    """Bytes that a training takes at its highest moment, as `pixelbert-plan` reckons it, of micro-batches as the one that was
    seen with texts as long as they may be; None where it cannot be told, which is logged."""
    images = shapes.get("images, channels, height, width")
    if images is None:
        return None
    device = parts.job.device
    assumed: list[str] = []
    try:
        has_gpu = device.type == "cuda"
        any_card = Card("", 0, 1, 1, 1, 1)
        precision = choose_precision(config, any_card)[1] if has_gpu else parts.precision
        answers = len(parts.processors["answers"]) if "answers" in parts.processors else 0
        there = torch.device("cuda", 0) if has_gpu else torch.device("cpu")
        simulation = Simulation(config, precision, there, parts.data.samples, answers, assumed, parts.data.answering)
        with simulation:
            longest = max(shapes["texts, tokens"][1], parts.processors["text"].max_length or 0)
            groups = images[0] // (parts.task.images_per_sample or 1)
            step = simulation.step(Shape(shapes["samples"][0], groups, longest, (images[2], images[3])))
            weights = simulation.weights()
        processes = parts.job.processes.world_size
        return memory.of_training(weights, step, processes, parts.training.parallel, accumulates, has_gpu).total
    except RunError as error:
        logger.warning("no estimate of memory: %s", error)
    except Exception as error:  # of a model that does not run on tensors without data
        logger.warning("no estimate of memory: %s: %s", type(error).__name__, error)
    return None


def measured(device: torch.device) -> int:
    """Bytes at the highest moment until now: of torch on a GPU, else of this process with all that it has loaded."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    scale = 1 if sys.platform == "darwin" else 1024
    return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _shapes(shapes: dict[str, tuple[int, ...]]) -> Table:
    table = Table("largest micro-batch", "shape", show_edge=False)
    for name, shape in shapes.items():
        table.add_row(name, " × ".join(map(str, shape)))
    return table


def _figures(parts: Parts, figures: dict[str, Any], epoch_samples: int, batch_samples: int, state: TrainState) -> Table:
    table = Table("one update", "", show_edge=False)
    seconds = figures["update_seconds"]
    first = figures["first_update_seconds"]
    table.add_row("loss, norm of its gradient", f"{figures['loss']:.4f}, {figures['grad_norm']:.4f}")
    after = f" (the first: {first:.2f} s)" if first != seconds else ""
    table.add_row("time", f"{seconds:.2f} s{after}, {figures['data_seconds']:.2f} s of it waiting for data")
    total = Length.of(parts.training, epoch_samples, batch_samples).total_updates()
    table.add_row(f"{total:,} such updates", f"{spoken(seconds * total)}, without evaluations")
    estimate, is_cuda = figures["estimated_bytes"], parts.job.device.type == "cuda"
    told = "–" if estimate is None else f"{estimate / GB:,.2f} GB{'' if is_cuda else ' of tensors'}"
    table.add_row("memory of a training, estimated", told)
    of = "torch's tensors" if is_cuda else "this process, with torch and the data"
    table.add_row("highest until now, measured", f"{figures['measured_bytes'] / GB:,.2f} GB, {escape(of)}")
    return table
