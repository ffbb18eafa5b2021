"""A micro-batch of a training, and of an evaluation, without a device: what is alive when, and how many operations."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from pixelbert_plugin import registry
from pixelbert_plugin.build import build_model, build_task
from pixelbert_plugin.config.contradictions import refuse_groups
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.interfaces import MatchingModel, Model, Task
from pixelbert_plugin.planning.batches import Shape, make, without_data
from pixelbert_plugin.planning.dry_run import Autocasting, backward, move, running
from pixelbert_plugin.planning.stand_ins import Assumptions, Samples, answer_processor, text_processor, without_files
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.training.recomputation import recompute_blocks
from pixelbert_plugin.types import Batch

BLOCK = 16  # images that are encoded together where every pair is scored (evaluation/retrieval.py)


@dataclass(frozen=True)
class Weights:
    """Of the model, in bytes, before the first update."""

    numbers: dict[str, int]  # parameters, by the model's own top-level parts
    held: int  # parameters and buffers as the model computes with them
    gradients: int
    masters: int  # float32 copies of half weights
    optimizer: int  # state
    largest_optimized: int  # gradients of the parameter group that has most of them
    largest_unit: int  # parameters of the largest part that FSDP shards alone
    outside_units: int  # parameters of none of these
    checkpoint: int  # weights in float32, buffers, state


@dataclass(frozen=True)
class Step:
    """Forward and backward pass of a micro-batch, in bytes beside the weights."""

    saved: int  # after the forward pass: what the backward pass needs, and the batch
    peak: int  # the most at any time, gradients of weights left out
    peak_with_gradients: int  # the most at any time, where no micro-batch came before
    forward: int  # operations
    backward: int


@dataclass(frozen=True)
class Evaluation:
    """Forward pass without gradient."""

    peak: int  # bytes beside the weights
    operations: float  # of a sample; where every pair is scored: of a pair
    operations_per_image: float = 0.0  # where every pair is scored


class Simulation:
    """The model of a configuration, built without weights on a GPU that need not be there; `with` it, look at what it does."""

    def __init__(
        self,
        config: RunConfig,
        precision: Precision,
        device: torch.device,
        samples: Samples,
        answers: int,
        assumed: Assumptions,
        answering: Samples | None = None,
    ):
        """`precision`: one of the CPU, whose casts are made on `device`. `samples`: what vocabularies are learned from, that of
        answers from `answering` where it is given; where they are not here VQA has so many `answers`. What is taken for granted
        is added to `assumed`."""
        made = without_files(config.model_config[config.model], assumed)
        self.config = replace(config, model_config={**config.model_config, config.model: made})
        roles = registry.get("task", config.task, "task").processors
        image = registry.build_component("processor", config.processors.image, "processors.image.params")
        makers = {
            "text": lambda: text_processor(config, samples, assumed),
            "answers": lambda: answer_processor(config, answering or samples, answers, assumed),
        }
        self.processors = {role: makers[role]() if role in makers else image for role in roles}
        self.task: Task = build_task(config.chosen_task, self.processors)
        self.device, self.precision = device, precision
        self.autocasting = Autocasting(precision, device)

    def __enter__(self) -> "Simulation":
        """Build the model, and look at what it does until the end of the `with`."""
        self._open = ExitStack()
        with ExitStack() as opened:
            opened.enter_context(torch.random.fork_rng(devices=[]))
            self.books = opened.enter_context(running(self.device))
            with self.books.building():
                self.model = build_model(self.config.chosen_model, self.task, self.processors, self.config.training.seed)
                move(self.model, self.device)
                self.precision.prepare(self.model, {})
                if self.config.training.gradient_checkpointing:
                    recompute_blocks(self.model, self.config.model)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def weights(self) -> Weights:
        """Raises ConfigError where the optimizers are not those of the model's parameter groups."""
        described = cast(Model, self.model)
        groups = described.parameter_groups()
        refuse_groups(self.config.model, list(groups), list(self.config.optimizer))
        parameters, buffers = list(self.model.parameters()), _bytes(self.model.buffers())
        trained = {name: [each for _, each in group if each.requires_grad] for name, group in groups.items()}
        halves = [each for group in trained.values() for each in group if each.dtype == torch.float16]
        has_masters = bool(getattr(_level(self.precision), "has_masters", False))
        states = [_state_bytes(self.config, name, group, has_masters) for name, group in trained.items()]
        gradients = {name: _bytes(group) for name, group in trained.items()}
        units = [_bytes(unit.parameters()) for unit in described.shard_units()]
        numbers: Counter[str] = Counter()
        for name, parameter in self.model.named_parameters():
            numbers[name.partition(".")[0]] += parameter.numel()
        return Weights(
            numbers=dict(numbers),
            held=_bytes(parameters) + buffers,
            gradients=sum(gradients.values()),
            masters=4 * sum(each.numel() for each in halves) if has_masters else 0,
            optimizer=sum(states),
            largest_optimized=max(gradients.values(), default=0) * (2 if has_masters else 1),
            largest_unit=max(units, default=0),
            outside_units=_bytes(parameters) - sum(units),
            checkpoint=4 * sum(numbers.values()) + buffers + sum(states),
        )

    def step(self, shape: Shape) -> Step:
        """One micro-batch of training: the run's own forward pass and losses (distributed/parallel.py), so that what is changed
        there or in the model, such as recomputing activations instead of keeping them, shows here without a word."""
        books = self.books
        losses = Losses(self.model.train(), self.task, cast(Precision, self.autocasting))
        books.forget_gradients()
        before, operations = books.live, books.operations
        given = self._batch(make(self.task, self.processors["text"], shape), shape)
        loss: list[Tensor] = [cast(Tensor, sum(losses(given).values()))]
        saved, forward = books.live - before, books.operations - operations
        backward(loss, books.add_gradient)
        return Step(
            saved=saved,
            peak=books.peak - before,
            peak_with_gradients=books.peak_with_gradients - before,
            forward=forward,
            backward=books.operations - operations - forward,
        )

    def operations_per_sample(self, samples: int, groups: float, tokens: int, size: tuple[int, int]) -> float:
        """Forward and backward of a micro-batch of so many samples. Where `groups` (of batches.Shape) is no whole number it is
        between those of the numbers below and above."""

        def operations(whole: int) -> int:
            step = self.step(Shape(samples, whole, tokens, size))
            return step.forward + step.backward

        found = float(operations(math.floor(groups)))
        if (part := groups % 1) > 1e-6:
            found += part * (operations(math.ceil(groups)) - found)
        return found / samples

    def evaluation(self, shape: Shape) -> Evaluation:
        """One forward of an evaluation; where every pair is scored, of so many pairs."""
        if self.task.scores_all_pairs:
            return self._scoring(shape)
        books, operations, before = self.books, self.books.operations, self.books.live
        given = self._batch(make(self.task, self.processors["text"], shape), shape)
        with torch.no_grad(), self.autocasting.autocast():
            self.model.eval()(given)
        return Evaluation(books.peak - before, (books.operations - operations) / shape.samples)

    def _scoring(self, shape: Shape) -> Evaluation:
        block = replace(shape, samples=BLOCK, groups=BLOCK)
        pairs, books, before = shape.samples, self.books, self.books.live
        given = self._batch(make(self.task, self.processors["text"], block, with_negatives=False), block)
        matching, operations = cast(MatchingModel, self.model.eval()), books.operations
        with torch.no_grad(), self.autocasting.autocast():
            images = matching.encode_images(given)
            per_image = (books.operations - operations) / BLOCK
            words, operations = matching.embed_texts(given.input_ids), books.operations
            first, mask = words[:1].expand(pairs, -1, -1), given.text_mask[:1].expand(pairs, -1)
            pixels, own = images.pixels[:1].expand(pairs, -1, -1), images.mask[:1].expand(pairs, -1)
            matching.pair_logits(first, mask, pixels, own)
        return Evaluation(books.peak - before, (books.operations - operations) / pairs, per_image)

    def _batch(self, batch: Batch, shape: Shape) -> Batch:
        """The batch as the model takes it; the highest moment is looked for from here on."""
        with self.books.building():
            given = without_data(batch, shape.size, self.device)
            if getattr(_level(self.precision), "has_half_weights", False):
                given = replace(given.to(torch.float16), image_sizes=given.image_sizes)
        self.books.forget_peaks()
        return given


def _level(precision: Precision) -> Any:
    """Apex's, which says what of the weights is half; None of a precision that has none."""
    return getattr(precision, "level", None)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _state_bytes(config: RunConfig, group: str, parameters: Sequence[Tensor], has_masters: bool) -> int:
    """Bytes of the state that the group's optimizer keeps, found by letting it take a step with small weights of its own: state
    of a weight's shape grows with it, other is once for each."""
    total = 0
    for ndim in {parameter.ndim for parameter in parameters}:
        own = [parameter for parameter in parameters if parameter.ndim == ndim]
        with unset_fake_temporarily():
            small = nn.Parameter(torch.ones((2,) * ndim, dtype=torch.float32 if has_masters else own[0].dtype))
            optimizer: torch.optim.Optimizer = registry.build_component(
                "optimizer", config.optimizer[group], f"optimizer.{group}.params", named_parameters=[("weight", small)]
            )
            small.grad = torch.ones_like(small)
            optimizer.step()
        for value in optimizer.state.get(small, {}).values():
            if isinstance(value, Tensor):
                grows = value.shape == small.shape and ndim > 0
                total += value.element_size() * (sum(each.numel() for each in own) if grows else value.numel() * len(own))
    return total
