"""The plan of a run: configuration and GPUs → memory, operations, hours and cost, with all that was assumed."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.config.contradictions import refuse, refuse_task
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.run_data import RunData
from pixelbert_plugin.planning import lengths, memory
from pixelbert_plugin.planning.batches import Shape
from pixelbert_plugin.planning.cards import GB, Card, Gpus, read_gpus
from pixelbert_plugin.planning.lengths import PHOTOGRAPH
from pixelbert_plugin.planning.memory import Memory
from pixelbert_plugin.planning.options import UTILIZATION, PlanConfig
from pixelbert_plugin.planning.schedule import Course, Hours, evaluated
from pixelbert_plugin.planning.simulation import Evaluation, Simulation, Weights
from pixelbert_plugin.planning.stand_ins import Assumptions
from pixelbert_plugin.precision import native
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.registry.schema import ConfigError

TRIES = 4  # of a larger micro-batch, each a dry run


@dataclass(frozen=True)
class Update:
    """How the pairs of an update are put through the model on one GPU."""

    batch_size: int  # pairs, over all GPUs
    micro_batch_size: int  # pairs
    micro_batches: int
    images: int  # of a micro-batch
    image_size: tuple[int, int]  # height and width in pixels, after resizing
    tokens: int  # of a text
    longest: int  # tokens that memory is reckoned for


@dataclass(frozen=True)
class Fit:
    """Whether a micro-batch fits into the GPU's memory."""

    needed: int  # bytes at the highest moment, of training or evaluation
    available: int
    largest: int | None  # pairs of the largest micro-batch that fits; None: not even one sample does
    micro_batches: int  # with it

    @property
    def fits(self) -> bool:
        return self.needed <= self.available


@dataclass(frozen=True)
class Plan:
    """What `pixelbert-plan` tells."""

    gpus: Gpus
    precision: str
    parallel: str
    parameters: dict[str, int]
    update: Update
    memory: Memory
    fit: Fit
    update_operations: float  # over all GPUs
    sample_operations: float
    tflops: float  # of one GPU, kept up
    course: Course | None  # None: nobody knows how many samples there are
    evaluation_operations: float  # of the whole run
    hours: Hours | None
    checkpoint: int  # bytes of one
    checkpoints: int  # of all that a run keeps
    assumed: Assumptions = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["memory"]["total"] = self.memory.total
        values["fit"]["fits"] = self.fit.fits
        if self.hours is not None:
            values["hours"]["total"] = self.hours.total
        return values


def plan(config: RunConfig, own: PlanConfig) -> Plan:
    """Raises UserError for options that contradict each other, and what the run itself would refuse."""
    with configuration.naming_sources(config.sources):
        refuse(config)
        planner = Planner(config, own)
        with planner.simulation:
            return planner.plan()


class Planner:
    """The steps of a plan, which share configuration, simulation and assumptions."""

    def __init__(self, config: RunConfig, own: PlanConfig):
        self.config, self.own, self.assumed = config, own, Assumptions()
        self.gpus = read_gpus(own.gpus)
        training = config.training
        if training.batch_size < self.gpus.number:
            raise ConfigError(
                "training.batch_size",
                f"{training.batch_size} pairs per update are fewer than the {self.gpus.number} GPUs that share them",
            )
        self.precision_name, self.precision, rate = choose_precision(config, self.gpus.card)
        self.tflops = own.rate or rate * (own.utilization or UTILIZATION)
        if own.rate is None:
            share = f"{own.utilization or UTILIZATION:g} utilization{'' if own.utilization else ', a guess'}"
            told = f"{self.tflops:,.0f} TFLOP/s: {rate:g} by {self.gpus.card.source}, at {share}"
            self.assumed.append(f"{told} (utilization=N, or a measured rate=TFLOPS)")
        self.lengths = lengths.measure(config, self.assumed)
        device = torch.device("cuda", 0)
        data = RunData(self.lengths.builders, {})
        self.simulation = Simulation(
            config, self.precision, device, data.samples, own.answers, self.assumed, answering=data.answering
        )
        self.lengths = self.lengths.with_known_answers(self.simulation.processors.get("answers"), training.texts_per_image)
        refuse_task(config.task, self.simulation.task, training)
        self.pairs = self.simulation.task.pairs_per_sample
        image = self.simulation.processors["image"]
        files = own.height_and_width or self.lengths.image_size
        if files is None:
            files = PHOTOGRAPH
            self.assumed.append(f"images of {files[0]} × {files[1]} pixels (image_size=HEIGHTxWIDTH for others)")
        self.size = image.resized(*files)
        if not training.bucket_by_size:
            self.assumed.append("no padding of images: batches would hold images of like size (training.bucket_by_size)")
        if training.compile != "none":
            self.assumed.append("blocks as they are written: what training.compile changes of memory and time is not counted")

    @property
    def samples(self) -> int:
        """Of an update, on one GPU."""
        return math.ceil(self.config.training.batch_size // self.pairs / self.gpus.number)

    @property
    def micro(self) -> int:
        """Samples of a micro-batch."""
        training = self.config.training
        return min(self.samples, max(1, (training.micro_batch_size or training.batch_size) // self.pairs))

    def plan(self) -> Plan:
        """Inside `with self.simulation`."""
        config, training = self.config, self.config.training
        weights, samples, micro = self.simulation.weights(), self.samples, self.micro
        text = self.simulation.processors["text"]
        longest = max(self.own.tokens, text.max_length or 0)
        self.assumed.append(
            f"texts of {self.own.tokens} tokens for operations (tokens=N), of {longest} for memory, as long as they may be"
        )
        update = Update(
            batch_size=training.batch_size,
            micro_batch_size=micro * self.pairs,
            micro_batches=math.ceil(samples / micro),
            images=self.shape(micro, longest).groups * (self.simulation.task.images_per_sample or 1),
            image_size=self.size,
            tokens=self.own.tokens,
            longest=longest,
        )
        evaluation = self._evaluation(longest)
        needed = self._memory(weights, samples, micro, longest)
        per_sample = self.operations_per_sample()
        course, evaluations, hours = self._course(per_sample)
        kept = training_kept(config)
        return Plan(
            gpus=self.gpus,
            precision=self.precision_name,
            parallel=training.parallel if self.gpus.number > 1 else "none",
            parameters=weights.numbers,
            update=update,
            memory=needed,
            fit=self._fit(weights, samples, micro, longest, needed, evaluation),
            update_operations=per_sample * (training.batch_size // self.pairs),
            sample_operations=per_sample,
            tflops=self.tflops,
            course=course,
            evaluation_operations=evaluations,
            hours=hours,
            checkpoint=weights.checkpoint,
            checkpoints=kept * weights.checkpoint,
            assumed=self.assumed,
        )

    def images(self, samples: int) -> float:
        """How many images, or pairs of them, the samples of a micro-batch of training have on average."""
        epoch, groups = self.lengths.epoch(self.config.training.dataset_weights)
        limit = self.config.training.texts_per_image
        return max(1.0, samples * (groups / epoch if epoch else 1 / (limit or samples)))

    def shape(self, samples: int, tokens: int) -> Shape:
        """A micro-batch of training; a part of an image counts as one."""
        return Shape(samples, math.ceil(round(self.images(samples), 6)), tokens, self.size)

    def operations_per_sample(self) -> float:
        """Forward and backward, of a micro-batch with as many images as the average. Inside `with self.simulation`."""
        return self.simulation.operations_per_sample(self.micro, self.images(self.micro), self.own.tokens, self.size)

    def _memory(self, weights: Weights, samples: int, micro: int, longest: int) -> Memory:
        step = self.simulation.step(self.shape(micro, longest))
        return memory.of_training(weights, step, self.gpus.number, self.config.training.parallel, micro < samples)

    def _evaluation(self, tokens: int) -> Evaluation:
        """One forward of the evaluation."""
        training = self.config.training
        pairs = self.config.evaluation.batch_size or training.micro_batch_size or training.batch_size
        samples = max(1, pairs // self.pairs)
        return self.simulation.evaluation(self._evaluated_shape(samples, tokens))

    def _evaluated_shape(self, samples: int, tokens: int) -> Shape:
        """All texts of an image stand together there."""
        known = [split for name in ("val", "test") for split in self.lengths.splits.get(name, {}).values()]
        share = max((split.images / split.samples for split in known if split.images), default=1.0)
        return Shape(samples, max(1, math.ceil(samples * share)), tokens, self.size)

    def _fit(self, weights: Weights, samples: int, micro: int, longest: int, needed: Memory, evaluation: Evaluation) -> Fit:
        """The largest micro-batch is guessed along the line through two of them, and tried."""
        available = round(self.gpus.card.memory_gb * GB)
        evaluating = memory.of_evaluation(needed, evaluation)

        def bytes_of(number: int) -> int:
            return max(evaluating, self._memory(weights, samples, number, longest).total)

        largest = largest_that_fits(bytes_of, micro, max(evaluating, needed.total), samples, available)
        micro_batches = math.ceil(samples / largest) if largest else 0
        return Fit(max(evaluating, needed.total), available, largest and largest * self.pairs, micro_batches)

    def _course(self, per_sample: float) -> tuple[Course | None, float, Hours | None]:
        config, own = self.config, self.own
        epoch, _ = self.lengths.epoch(config.training.dataset_weights)
        missing = sorted(set(config.datasets) - set(self.lengths.splits.get("train", {}))) if "train" in config.splits() else []
        epoch = own.samples or (0 if missing else epoch)
        course, operations = None, 0.0
        if "train" in config.splits():
            if not epoch:
                self.assumed.append(
                    f"how long it takes is unknown: {', '.join(missing)} is not here; samples=N says how many there are"
                )
                return None, 0.0, None
            course = Course.of(config, epoch, self.pairs)
            operations = per_sample * course.samples
        evaluations = self._evaluations(course)
        return course, evaluations, Hours.of(operations, evaluations, self.tflops, self.gpus.number, own.price_per_gpu_hour)

    def _evaluations(self, course: Course | None) -> float:
        """Operations of every evaluation of the run."""
        total = 0.0
        evaluation = self._evaluation(self.own.tokens)
        times = course.evaluations if course else 0
        for name, splits in self.lengths.splits.items():
            for dataset, split in splits.items() if name != "train" else ():
                again, _ = evaluated(self.simulation.task, evaluation, split, is_final=False, is_val=name == "val")
                final, number = evaluated(self.simulation.task, evaluation, split, is_final=True, is_val=name == "val")
                total += (times * again if name == "val" else 0) + final
                if self.simulation.task.scores_all_pairs:
                    self.assumed.append(f"{number:,} pairs scored in the final evaluation of {dataset}'s {name}")
        missing = [name for name, splits in self.lengths.splits.items() if name != "train" and not splits]
        if missing:
            self.assumed.append(f"no evaluation of {', '.join(missing)}: how many samples it has is unknown")
        return total


def largest_that_fits(bytes_of: Callable[[int], int], start: int, at_start: int, most: int, available: int) -> int | None:
    """The largest number in 1…most whose `bytes_of`, which grows along a line, are available; None where 1 does not."""
    if at_start <= available and start == most:
        return most
    other = max(1, start // 2) if at_start > available or start > 1 else 2
    slope = (at_start - bytes_of(other)) / (start - other) if other != start else at_start
    guess = start + math.floor((available - at_start) / max(slope, 1))
    for _ in range(TRIES):
        guess = min(most, guess)
        if guess < 1:
            break
        if bytes_of(guess) <= available:
            return guess
        guess = min(guess - 1, math.floor(0.95 * guess))
    return 1 if bytes_of(1) <= available else None


def training_kept(config: RunConfig) -> int:
    """Checkpoints that lie in the run's folder: the newest and the best."""
    return config.checkpoint.max_to_keep + ("val" in config.splits())


def choose_precision(config: RunConfig, card: Card) -> tuple[str, Precision, float]:
    """The precision's name as on this card, one of the CPU that casts alike, and the card's rate in TFLOP/s.

    Raises ConfigError where the card has no such arithmetic.
    """
    name = config.training.precision
    if name == "auto":
        name = "bf16" if card.bf16 else "fp32"
    options = config.precision_config
    if name == "apex" and name in options:
        options = {**options, name: replace(options[name], backend="native")}  # the same numbers, without a word about Apex
    if name == "tf32":  # refuses a CPU
        precision: Precision = registry.build("precision", "fp32", device=torch.device("cpu"))
        kind = "tf32"
    else:
        precision = native.choose(name, options, torch.device("cpu"))
        with precision.autocast():
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        is_half = dtype == torch.float16 or bool(getattr(getattr(precision, "level", None), "has_half_weights", False))
        kind = "fp16" if is_half else "bf16" if dtype == torch.bfloat16 else "fp32"
    rate = getattr(card, kind)
    if rate is None:
        others = ", ".join(each for each in ("bf16", "fp16", "tf32", "fp32") if getattr(card, each) is not None)
        raise ConfigError("training.precision", f"{name!r}: {card.name} has no {kind}; it has {others}")
    return name, precision, rate
