"""The training loop. Periodic actions are the `if` lines in `train`; there are no callbacks."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.distributed.parallel import on_all
from pixelbert_plugin.errors import LostProcessError, NonFiniteLossError, RunError, Stopped
from pixelbert_plugin.evaluation.evaluator import SplitEvaluation, check_monitor
from pixelbert_plugin.training.compilation import Compilation
from pixelbert_plugin.training.length import Length, go_on, samples_of
from pixelbert_plugin.training.step import Step
from pixelbert_plugin.training.stop import StopSignal
from pixelbert_plugin.training.tracking import Events, NoEvents
from pixelbert_plugin.types import Batch

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Trainer:
    """Everything the loop drives; `run.py` builds it."""

    model: nn.Module
    step: Step
    loader: Loader
    stop: StopSignal
    events: Events | NoEvents
    options: TrainingConfig
    state: TrainState
    evaluate: Callable[[], dict[str, SplitEvaluation]] | None  # on the validation split, by "split/dataset"; None without one
    save: Callable[[TrainState], object]  # in every process; it may be written beside the training
    settle: Callable[[], object]  # in every process: waits until what was saved lies on the disk
    record: Callable[[TrainState], object]  # in every process: what an evaluation of the saved update came to
    monitor: str  # the metric that chooses the best checkpoint
    compilation: Compilation | None = None  # of the model's blocks; None: they run as they are written

    def train(self) -> TrainState:
        """Train to the end, from `state` on. Raises NonFiniteLossError, and Stopped where a signal ended it, all saved.

        What is evaluated is saved before: where an evaluation fails or is killed nothing is lost, and a resume makes up for it.
        """
        options, state, length = self.options, self.state, self.length
        go_on(state, len(self.loader))
        self.model.train()
        self._unchecked: list[tuple[int, Tensor, list[int | str]]] = []  # update, loss + gradient norm, sample ids
        updates = self._updates()
        logged_samples, logged_seconds, data_seconds = state.samples, state.seconds, 0.0
        with self.events.bar(state.update, length.total_updates(state.update, self.position)), self.stop.deferred():
            if state.is_evaluation_due and self.evaluate is not None:
                self._evaluate()
            is_over = self._is_early_stop() or length.is_over(state.update, self.position)
            if is_over:
                why = "training.early_stop" if self._is_early_stop() else "training.max_updates or max_epochs"
                logger.info("this training has ended already, after update %d, by %s: it is only evaluated", state.update, why)
            while not is_over:
                began, before = time.perf_counter(), self.position
                micro_batches, samples = self._next(updates)
                data_seconds += time.perf_counter() - began
                is_last = length.is_over(state.update + 1, before + samples)
                is_logged = is_last or (state.update + 1) % options.log_interval == 0
                epoch, ready = before / len(self.loader), self.loader.one_ahead
                losses, norm = self.step(micro_batches, state.update + 1, epoch, ready, with_norms=is_logged)
                state.update += 1
                state.samples += samples
                state.position = before + samples
                self._note(losses, norm, micro_batches)
                moved = (state.update, before, state.position)
                is_evaluated = self.evaluate is not None and (is_last or length.is_due(*options.evaluation_every, *moved))
                is_saved = is_last or length.is_due(*options.checkpoint_every, *moved)
                if is_logged or is_evaluated or is_saved:
                    self.check_finite()  # which waits for the device, so that the time below is true
                state.seconds += time.perf_counter() - began

                if is_logged:
                    speed = (state.samples - logged_samples) / max(state.seconds - logged_seconds, 1e-9)
                    self._log(losses, norm, speed, data_seconds, micro_batches)
                    logged_samples, logged_seconds, data_seconds = state.samples, state.seconds, 0.0
                self.events.advance(state.update, state.seconds)
                is_stopped = self.step.processes.any(self.stop.is_set)
                if is_saved or is_evaluated or is_stopped:
                    state.is_evaluation_due = is_evaluated
                    self._save()
                    if is_evaluated:
                        self.settle()
                    self._end_if_stopped("after")  # a signal since then, where nothing was saved, waits for the next update
                if is_evaluated:
                    self._evaluate()
                    self.events.sampled(self.loader, micro_batches, state.update)
                    self._end_if_stopped("after the evaluation after")
                is_over = is_last or self._is_early_stop()
        return state

    def _next(self, updates: Iterator[tuple[list[Batch], int]]) -> tuple[list[Batch], int]:
        """The next update's micro-batches. Where a signal or the time limit ends a wait for data, what is trained is saved."""
        try:
            return next(updates)
        except (Stopped, LostProcessError) as error:
            if self.step.processes.world_size > 1:  # several processes can only save together
                raise
            self._save()
            self.settle()
            if isinstance(error, Stopped):
                raise self._stopped("while waiting for data, after") from error
            error.add(f"update {self.state.update} is saved; checkpoint.resume=true goes on")
            raise

    @property
    def length(self) -> Length:
        return Length.of(self.options, len(self.loader), self.batch_samples)

    def check_finite(self) -> None:
        """Raise NonFiniteLossError, with the samples of the first batch whose loss or gradient was NaN or infinite."""
        unchecked, self._unchecked = self._unchecked, []
        finite = torch.isfinite(torch.stack([value for _, value, _ in unchecked])).tolist() if unchecked else []
        for (update, _, ids), is_finite in zip(unchecked, finite, strict=True):
            if not is_finite:
                raise NonFiniteLossError(
                    f"update {update}: the loss or its gradient is not finite; samples of the batch: {ids}. Lower the learning "
                    "rates, set training.max_grad_norm, or look at these samples; checkpoints hold the state before"
                )

    def _check_weights(self) -> None:
        """Never save what a NaN has reached: weights after a step, or batch norm's statistics."""
        values = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        if not on_all(values, is_finite, self.step.processes):
            raise NonFiniteLossError(
                f"update {self.state.update}: the weights are not finite after it. Lower the learning rates or set "
                "training.max_grad_norm; checkpoints hold the state before"
            )

    def _note(self, losses: dict[str, Tensor], norm: Tensor, micro_batches: list[Batch]) -> None:
        """Keep what must be finite for `check_finite`: on a GPU, looking at each one at once would wait for it.

        A precision that skips updates whose gradients overflow has dealt with the norm.
        """
        value = cast(Tensor, sum(losses.values())) + (0 if self.step.precision.skips_overflow else norm)
        ids = [sample_id for batch in micro_batches for sample_id in batch.sample_ids]
        self._unchecked.append((self.state.update, value, ids))
        if self.step.precision.device.type == "cpu":
            self.check_finite()

    def _end_if_stopped(self, when: str) -> None:
        """Raise Stopped where a signal asked any process to end; call it where all is saved."""
        if self.step.processes.any(self.stop.is_set):
            self.settle()
            raise self._stopped(when)

    def _stopped(self, when: str) -> Stopped:
        return self.stop.stopped(f"{when} update {self.state.update}, which is saved", is_told=not self.step.processes.is_main)

    def _save(self) -> None:
        self._check_weights()
        counts = self.step.processes.gather(self.loader.skipped_images)
        if counts is not None:
            self.state.skipped_images = dict(sum(map(Counter, counts), Counter()))
        self.events.flush()  # a kill must not lose events of updates that a resume will not repeat
        self.save(self.state)

    @property
    def position(self) -> int:
        """The state's, which `go_on` has set."""
        return self.state.position or 0

    @property
    def batch_samples(self) -> int:
        """Samples per update."""
        return samples_of(self.options, self.step.task.pairs_per_sample)[0]

    def _updates(self) -> Iterator[tuple[list[Batch], int]]:
        samples = samples_of(self.options, self.step.task.pairs_per_sample)
        return self.loader.updates(self.position, *samples, self.options.texts_per_image)

    def _is_early_stop(self) -> bool:
        early = self.options.early_stop
        return early.enabled and self.state.evaluations_since_best >= early.patience

    def _evaluate(self) -> None:
        """Evaluate on the validation split, if there is one, note the best and record both with the checkpoint."""
        state = self.state
        try:
            evaluations = self.evaluate() if self.evaluate is not None else {}
        except Stopped as error:
            raise self._stopped("in the evaluation after") from error
        except RunError as error:
            error.add(f"in the evaluation after update {state.update}, which is saved; checkpoint.resume=true goes on")
            raise
        state.is_evaluation_due = False
        if evaluations:
            self._note_evaluations(evaluations)
        self.record(state)

    def _note_evaluations(self, evaluations: dict[str, SplitEvaluation]) -> None:
        state = self.state
        state.metrics = {}
        for name, evaluation in evaluations.items():
            state.metrics |= {f"{name}/{metric}": value for metric, value in evaluation.metrics.items()}
            self.events.evaluation(name, evaluation.metrics, state.update)
            self.events.examples(name, evaluation.results, state.update)
        check_monitor(self.monitor, state.metrics)
        state.note_best(state.metrics[self.monitor], self.options.early_stop.minimize)

    def _log(
        self,
        losses: dict[str, Tensor],
        norm: Tensor,
        samples_per_second: float,
        data_seconds: float,
        micro_batches: list[Batch],
    ) -> None:
        """`data_seconds`: how long the updates since the last logged one waited for data."""
        values = self.step.processes.sum(torch.stack(list(losses.values()))).tolist()
        parts = dict(zip(losses, values, strict=True))
        record = {
            "update": self.state.update,
            "samples": self.state.samples,
            "epoch": self.position / len(self.loader),
            "loss": sum(parts.values()),
            "losses": parts,
            "lr": self.step.rates(),
            "grad_norm": norm.item() if norm.isfinite() else None,  # None: it overflowed, and the update was skipped
            "grad_norms": {name: value.item() for name, value in self.step.group_norms.items() if value.isfinite()},
            "samples_per_second": samples_per_second,
            "data_seconds": data_seconds,
            "precision": " ".join(self.step.precision.description.values()),
        }
        if self.step.precision.loss_scale is not None:
            record |= {"loss_scale": self.step.precision.loss_scale, "skipped_updates": self.step.precision.skipped_updates}
        if self.step.precision.device.type == "cuda":
            record["gpu_memory_gb"] = torch.cuda.max_memory_allocated(self.step.precision.device) / 1e9
        if self.compilation is not None:
            record["compilations"] = self.compilation.count
        self.events.train(record, self.loader.mean_padding(micro_batches))


def is_finite(values: Tensor) -> Tensor:
    """Whether all are, as a scalar: one pass over them, without a tensor of their size in between."""
    return torch.stack(values.aminmax()).isfinite().all() if values.numel() else torch.tensor(True, device=values.device)
