"""A micro-batch of a training, and of an evaluation, without a device: what is alive when, and how many operations."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.build import build_model, build_task
from pixelbert_plugin.config.contradictions import refuse_groups
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.interfaces import MatchingModel, Model, Task
from pixelbert_plugin.planning.batches import Shape, make, without_data
from pixelbert_plugin.planning.dry_run import Autocasting, DryRun, backward, move, running
from pixelbert_plugin.planning.stand_ins import Assumptions, answer_processor, text_processor, without_files
from pixelbert_plugin.precision.native import Precision

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
    """The model of a configuration, built without weights on a GPU that need not be there."""

    def __init__(self, config: RunConfig, precision: Precision, device: torch.device, answers: int, assumed: Assumptions):
        """`precision`: one of the CPU, whose casts are made on `device`. What is taken for granted is added to `assumed`."""
        made = without_files(config.model_config[config.model], assumed)
        self.config = replace(config, model_config={**config.model_config, config.model: made})
        roles = registry.get("task", config.task, "task").processors
        image = registry.build_component("processor", config.processors.image, "processors.image.params")
        makers = {
            "text": lambda: text_processor(config, assumed),
            "answers": lambda: answer_processor(config, answers, assumed),
        }
        self.processors = {role: makers[role]() if role in makers else image for role in roles}
        self.task: Task = build_task(config, self.processors)
        self.device, self.precision = device, precision
        self.autocasting = Autocasting(precision, device)

    @contextmanager
    def built(self) -> Iterator[tuple[nn.Module, DryRun]]:
        """The model on its device, and the bookkeeper that sees what it does."""
        with torch.random.fork_rng(devices=[]), running(self.device) as books:
            with books.building():
                model = build_model(self.config, self.task, self.processors)
                move(model, self.device)
                self.precision.prepare(model, {})
            yield model, books

    def weights(self) -> Weights:
        """Raises ConfigError where the optimizers are not those of the model's parameter groups."""
        with self.built() as (model, _):
            described = cast(Model, model)
            groups = described.parameter_groups()
            refuse_groups(self.config.model, list(groups), list(self.config.optimizer))
            parameters = list(model.parameters())
            trained = {name: [(n, p) for n, p in group if p.requires_grad] for name, group in groups.items()}
            halves = [p for group in trained.values() for _, p in group if p.dtype == torch.float16]
            has_masters = bool(getattr(getattr(self.precision, "level", None), "has_masters", False))
            masters = 4 * sum(p.numel() for p in halves) if has_masters else 0
            state = sum(
                _state_bytes(self.config, name, group, has_masters) for name, group in trained.items() if group
            )
            gradients = {name: _bytes([p for _, p in group]) for name, group in trained.items()}
            units = [_bytes(list(unit.parameters())) for unit in described.shard_units()]
            buffers = _bytes(list(model.buffers()))
            numbers: Counter[str] = Counter()
            for name, parameter in model.named_parameters():
                numbers[name.partition(".")[0]] += parameter.numel()
            return Weights(
                numbers=dict(numbers),
                held=_bytes(parameters) + buffers,
                gradients=sum(gradients.values()),
                masters=masters,
                optimizer=state,
                largest_optimized=max(gradients.values(), default=0) * (2 if has_masters else 1),
                largest_unit=max(units, default=0),
                outside_units=_bytes(parameters) - sum(units),
                checkpoint=4 * sum(numbers.values()) + buffers + state,
            )

    def step(self, shape: Shape) -> Step:
        """One micro-batch of training."""
        batch = make(self.task, self.processors["text"], shape)
        with self.built() as (model, books):
            losses = Losses(model.train(), self.task, cast(Precision, self.autocasting))
            before, operations = books.live, books.operations
            with books.building():
                given = without_data(self._cast(batch), shape.size, self.device)
            books.forget_peaks()
            loss: list[Tensor] = [cast(Tensor, sum(losses(given).values()))]
            saved, forward = books.live - before, books.operations - operations
            backward(loss, books)
            return Step(
                saved=saved,
                peak=books.peak - before,
                peak_with_gradients=books.peak_with_gradients - before,
                forward=forward,
                backward=books.operations - operations - forward,
            )

    def evaluation(self, shape: Shape) -> Evaluation:
        """One forward of an evaluation; where every pair is scored, of so many pairs."""
        if self.task.scores_all_pairs:
            return self._scoring(shape)
        batch = make(self.task, self.processors["text"], shape)
        with self.built() as (model, books), torch.no_grad():
            before, operations = books.live, books.operations
            with books.building():
                given = without_data(self._cast(batch), shape.size, self.device)
            books.forget_peaks()
            with self.autocasting.autocast():
                model.eval()(given)
            return Evaluation(books.peak - before, (books.operations - operations) / shape.samples)

    def _scoring(self, shape: Shape) -> Evaluation:
        batch = make(self.task, self.processors["text"], replace(shape, samples=BLOCK, groups=BLOCK), with_negatives=False)
        pairs = shape.samples
        with self.built() as (model, books), torch.no_grad():
            matching = cast(MatchingModel, model.eval())
            before, operations = books.live, books.operations
            with books.building():
                given = without_data(self._cast(batch), shape.size, self.device)
            books.forget_peaks()
            with self.autocasting.autocast():
                images = matching.encode_images(given)
                per_image = (books.operations - operations) / BLOCK
                words = matching.embed_texts(given.input_ids)
            operations = books.operations
            with self.autocasting.autocast():
                first, mask = words[:1].expand(pairs, -1, -1), given.text_mask[:1].expand(pairs, -1)
                pixels, own = images.pixels[:1].expand(pairs, -1, -1), images.mask[:1].expand(pairs, -1)
                fused, _, _ = matching.fuse(first, mask, pixels, own)
                matching.cls_logits(fused)
            return Evaluation(books.peak - before, (books.operations - operations) / pairs, per_image)

    def _cast(self, batch: Any) -> Any:
        """What half weights are given."""
        has_half = bool(getattr(getattr(self.precision, "level", None), "has_half_weights", False))
        return batch.to(torch.float16) if has_half else batch


def _bytes(tensors: list[Any]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _state_bytes(config: RunConfig, group: str, named: list[tuple[str, nn.Parameter]], has_masters: bool) -> int:
    """Bytes of the state that the group's optimizer keeps, found by letting it take a step with small weights of its own: state
    of a weight's shape grows with it, other is once for each."""
    total = 0
    with _on_the_cpu():
        for ndim in {parameter.ndim for _, parameter in named}:
            own = [parameter for _, parameter in named if parameter.ndim == ndim]
            dtype = torch.float32 if has_masters else own[0].dtype
            small = nn.Parameter(torch.ones((2,) * ndim, dtype=dtype))
            optimizer: torch.optim.Optimizer = registry.build_component(
                "optimizer", config.optimizer[group], f"optimizer.{group}.params", named_parameters=[("weight", small)]
            )
            small.grad = torch.ones_like(small)
            optimizer.step()
            for value in optimizer.state.get(small, {}).values():
                if isinstance(value, Tensor):
                    grows = value.shape == small.shape and ndim > 0
                    numbers = sum(p.numel() for p in own) if grows else value.numel() * len(own)
                    total += value.element_size() * numbers
    return total


def _on_the_cpu() -> Any:
    """Real tensors for a moment, inside a dry run."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    return unset_fake_temporarily()
