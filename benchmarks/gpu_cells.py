"""What benchmarks/gpu.py measures, cell by cell, each in a process of its own: a training's updates, and scoring every pair.

Parts are the run's own: processors, task, model, optimizers, precision, Loader with its workers, Step, `score_all_pairs`.
Weights are random, and the rates so low that they stay nearly as they are: what a number is makes no difference to time.
"""

import itertools
import json
import math
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoding import encoded, picture
from full_scale import CONFIGS
from input_path import COCO
from steps import ANSWERS, vocabulary
from torch import nn

from pixelbert_plugin import build, registry
from pixelbert_plugin import config as configuration
from pixelbert_plugin.build import build_model, build_optimizers, build_processors, build_task, choose_device
from pixelbert_plugin.config.options import RunConfig, TrainingConfig
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.distributed.parallel import Losses, wrap
from pixelbert_plugin.distributed.processes import ALONE
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.evaluation.retrieval import IMAGES_PER_BLOCK, score_all_pairs
from pixelbert_plugin.planning.stand_ins import without_files
from pixelbert_plugin.precision import native
from pixelbert_plugin.precision.apex import nvidia as nvidia_apex
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.registry.schema import Component
from pixelbert_plugin.training.recomputation import recompute_blocks
from pixelbert_plugin.training.step import Step
from pixelbert_plugin.types import Batch, Sample

TRAININGS = ("pretrain", "vqa2", "nlvr2", "flickr30k_retrieval")  # COCO's retrieval makes the same steps
SCORED = "flickr30k_retrieval"  # of which every pair is scored
PRECISIONS = {  # by name: options, and what matrices are multiplied in
    "fp32": (["training.precision=fp32"], torch.float32),
    "tf32": (["training.precision=tf32"], torch.float32),
    "bf16": (["training.precision=bf16"], torch.bfloat16),
    "fp16": (["training.precision=fp16"], torch.float16),
    **{
        f"apex_{level}": (
            [
                "training.precision=apex",
                f"precision_config.apex.opt_level={level}",
                "precision_config.apex.backend=apex",
            ],
            torch.float16,
        )
        for level in ("O1", "O2")
    },
}
COMPILES = ("none", "blocks")
HAS_COMPILE = "compile" in {field.name for field in fields(TrainingConfig)}
TEXTS = {"coco": 5, "visual_genome": 50, "vqa2": 5, "nlvr2": 4, "flickr30k": 5}  # of an image, or of a pair of them
WORDS = range(8, 15)  # of a text: with [CLS] and [SEP] 10 to 16 tokens
EPOCH = 24  # updates that the samples are enough for
FEWEST = 32  # images of a data set, so that there are texts of others
RATES = 1e-3  # factor on the learning rates
SMALL = [  # for a CPU
    "processors.image.params.short_edge=64",
    "processors.image.params.long_edge=107",
    "model_config.pixelbert.text_encoder.params.weights=null",
    "model_config.pixelbert.text_encoder.params.hidden_size=64",
    "model_config.pixelbert.text_encoder.params.num_hidden_layers=2",
    "model_config.pixelbert.text_encoder.params.num_attention_heads=2",
    "model_config.pixelbert.text_encoder.params.intermediate_size=128",
    "training.batch_size=4",
    "training.micro_batch_size=2",
    "training.num_workers=0",
    "evaluation.batch_size=64",
]


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    kind: str  # training or scoring
    experiment: str  # a shipped configuration's name
    precision: str
    compile: str = "none"

    @property
    def name(self) -> str:
        what = self.experiment if self.kind == "training" else f"{self.experiment}, every pair"
        return f"{what}, {self.precision}{'' if self.compile == 'none' else ', compiled ' + self.compile}"

    def config(self, folder: Path, overrides: Sequence[str]) -> RunConfig:
        """The configuration of the experiment on the made-up data of `folder`."""
        own = [
            f"processors.text.params.vocabulary={folder}",
            f"processors.answers.params.vocabulary={folder / 'answers.txt'}",
            f"env.data_dir={folder}",
            f"env.cache_dir={folder / 'cache'}",
            *PRECISIONS[self.precision][0],
            *([f"training.compile={self.compile}"] if HAS_COMPILE else []),
        ]
        return configuration.resolve(CONFIGS / f"{self.experiment}.yaml", [*own, *overrides])


def cells(backbones: Sequence[str], precisions: Sequence[str], compiles: Sequence[str]) -> list[Cell]:
    """All of them, pre-training first."""
    found = [
        Cell("training", f"{name}{ending}", precision, compiled)
        for name in TRAININGS
        for ending in backbones
        for precision in precisions
        for compiled in compiles
    ]
    scored = [each for each in ("bf16", "fp16") if each in precisions]
    return found + [Cell("scoring", f"{SCORED}{ending}", precision) for ending in backbones for precision in scored]


def make_data(folder: Path, pictures: int) -> None:
    """Vocabularies, and so many JPEGs of sizes about as frequent as COCO's."""
    vocabulary(folder)
    (folder / "answers.txt").write_text("\n".join(f"answer{number}" for number in range(ANSWERS)))
    files = {size: encoded(picture(*size), "JPEG", quality=90) for size in COCO}
    (folder / "pictures").mkdir()
    for number, size in enumerate(random.Random(1).choices(list(COCO), list(COCO.values()), k=pictures)):
        (folder / "pictures" / f"{number}.jpg").write_bytes(files[size])


def mixture(config: RunConfig, folder: Path, images_per_sample: int, count: int) -> Mixture:
    """At least `count` samples of random words, of the configuration's data sets in their proportion. Images are many, and
    share the files."""
    files = sorted((folder / "pictures").iterdir())
    images = max(FEWEST, math.ceil(count / sum(TEXTS[name] for name in config.datasets)))

    def samples(name: str) -> Iterator[Sample]:
        draw = random.Random(name)
        for image in range(images):
            ids = tuple(range(image * images_per_sample, (image + 1) * images_per_sample))
            paths = tuple(files[number % len(files)] for number in ids)
            for number in range(TEXTS[name]):
                text = " ".join(f"w{draw.randrange(5, 30000)}" for _ in range(draw.choice(WORDS)))
                answer = draw.choice(("False", "True")) if name == "nlvr2" else f"answer{draw.randrange(ANSWERS)}"
                sample_id = image * TEXTS[name] + number
                yield Sample(sample_id=sample_id, image_ids=ids, images=paths, text=text, answers=(answer,) * 10, answer=answer)

    return Mixture("train", {name: list(samples(name)) for name in config.datasets})


class Parts:
    """What a run builds, of a cell's configuration."""

    def __init__(self, config: RunConfig, dtype: torch.dtype, folder: Path):
        self.config, self.folder = config, folder
        self.device = choose_device(config.training)
        roles = registry.get("task", config.task, "task").processors
        self.processors = build_processors(config.processors, roles)
        self.task = build_task(config.chosen_task, self.processors)
        self.precision: Precision = native.choose(config.training.precision, config.precision_config, self.device)
        self.matmul = matmul_rate(dtype, self.device)
        options = without_files(config.model_config[config.model], [])
        seed = config.training.seed
        model = build_model(Component(config.model, options), self.task, self.processors, seed)
        self.model = build.put_on(model, self.device, is_sharded=False) if HAS_COMPILE else model.to(self.device)
        calm(self.model)

    def loader(self, count: int) -> Loader:
        """Of at least `count` samples."""
        config = self.config
        made = mixture(config, self.folder, self.task.images_per_sample or 1, count)
        return Loaders(config.training, config.env.cache, self.task, self.processors, self.device).of(made)


def calm(model: nn.Module) -> None:
    """Random weights between norms that are fixed double a ResNet's activations in every block: float16 would overflow."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("bn3"):
                module.weight.mul_(0.1)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of square matrix products in `dtype`, the best of several: what the device can do. float32 is
    multiplied as the precision that was built last has set it, with TensorFloat-32 or without."""
    edge, times = (8192, 20) if device.type == "cuda" else (512, 4)
    one, other = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
    best = math.inf
    for _ in range(4):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(times):
            one @ other
        synchronize(device)
        best = min(best, (time.perf_counter() - began) / times)
    return 2 * edge**3 / best


def train(parts: Parts, compiled: str, seconds: float, open_now: ExitStack) -> dict[str, Any]:
    """Updates of a training for about `seconds`, then as many of batches that are there already."""
    config, options, task, model = parts.config, parts.config.training, parts.task, parts.model.train()
    optimizers = build_optimizers(config.optimizer, model)
    parts.precision.prepare(model, optimizers)
    if compiled == "blocks":
        from pixelbert_plugin.training.compilation import compile_blocks

        open_now.enter_context(compile_blocks(model, config.model, parts.device).going_on())
    if options.gradient_checkpointing:
        recompute_blocks(model, config.model)
    step = Step(
        parallel=wrap(options.parallel, Losses(model, task, parts.precision), ALONE),
        task=task,
        optimizers=optimizers,
        schedule=lambda update, epoch: RATES,
        precision=parts.precision,
        processes=ALONE,
        seed=options.seed,
        max_grad_norm=options.max_grad_norm,
    )
    pairs = task.pairs_per_sample
    batch_samples = options.batch_size // pairs
    micro = options.micro_batch_size and max(1, options.micro_batch_size // pairs)
    loader = parts.loader(EPOCH * batch_samples)
    if HAS_COMPILE:
        is_known = task.images_per_sample == 1 and not parts.processors["image"].augments
        build.choose_convolutions(parts.device, loader.sizes_M2 if is_known else None)
    updates = (batches for batches, _ in loader.updates(0, batch_samples, micro, options.texts_per_image))
    seen = Seen(loader)
    numbers = itertools.count(1)
    found: list[Any] = []

    def timed(source: Iterator[list[Batch]], count: int) -> float:
        """Seconds of so many updates; on a GPU the host waits for it at the end alone, as a training does where it logs."""
        synchronize(parts.device)
        began = time.perf_counter()
        for batches in itertools.islice(source, count):
            seen.note(batches)
            found[:] = [batches, *step(batches, next(numbers), 0.0, loader.one_ahead)]
        synchronize(parts.device)
        return time.perf_counter() - began

    warm = 4 if seconds and compiled != "none" else 1  # until each kind of batch has come once
    timed(updates, warm)  # plans of cuDNN, memory, compiled code
    count = min(EPOCH - warm - 2, math.ceil(seconds / timed(updates, 1))) if seconds else 1
    seen.forget()
    skipped = parts.precision.skipped_updates
    took = timed(updates, count)
    means = seen.means()
    batches, losses, _ = found
    held = timed(itertools.repeat(batches), count)
    return {
        **means,
        "pairs": means["samples"] * pairs,
        "micro_samples": micro or batch_samples,
        "updates": count,
        "skipped": parts.precision.skipped_updates - skipped,
        "seconds": took,
        "seconds_of_held": held,
        "loss": float(sum(losses.values())),
    }


class Seen:
    """What the batches of the timed updates are like."""

    def __init__(self, loader: Loader):
        self.image = loader.reader.image
        self.forget()

    def forget(self) -> None:
        self.samples = self.batches = self.images = self.pixels = self.texts = 0
        self.tokens = 0.0

    def note(self, batches: list[Batch]) -> None:
        for batch in batches:
            self.batches += 1
            self.samples += len(batch)
            self.images += len(batch.images)
            self.pixels += sum(math.prod(self.image.resized(*image.shape[-2:])) for image in batch.images)
            self.texts += len(batch.text_mask)
            self.tokens += float(batch.text_mask.sum())

    def means(self) -> dict[str, float]:
        return {
            "samples": self.samples,
            "images_of_micro_batch": self.images / self.batches,
            "pixels_of_image": self.pixels / self.images,
            "tokens_of_text": self.tokens / self.texts,
        }


@torch.no_grad()
def score(parts: Parts, seconds: float) -> dict[str, Any]:
    """Every pair of so many images and their texts that it takes about `seconds`, and the share of encoding the images."""
    parts.precision.prepare(parts.model, {})
    model, batch_size = parts.model.eval(), parts.config.evaluation.batch_size
    loader = parts.loader(TEXTS["flickr30k"] * 1000)

    def scored(images: int) -> tuple[float, int, bool]:
        synchronize(parts.device)
        began = time.perf_counter()
        scores_IT = score_all_pairs(model, parts.task, loader, batch_size, parts.precision, max_images=images).scores_IT
        return time.perf_counter() - began, scores_IT.size, bool(torch.isfinite(torch.from_numpy(scores_IT)).all())

    def encoded_in(images: int) -> float:
        firsts = TEXTS["flickr30k"] * np.arange(images)
        groups = [firsts[at : at + IMAGES_PER_BLOCK] for at in range(0, images, IMAGES_PER_BLOCK)]
        synchronize(parts.device)
        began = time.perf_counter()
        for batch in loader.read_images(groups):
            with parts.precision.autocast():
                model.encode_images(batch)
        synchronize(parts.device)
        return time.perf_counter() - began

    first = 64 if seconds else 8
    scored(first)
    took, pairs, _ = scored(first)
    images = min(1000, max(first, int(math.sqrt(seconds / took * pairs / TEXTS["flickr30k"]))))
    encoding = encoded_in(images)
    took, pairs, is_finite = scored(images)
    sizes = loader.sizes_M2[: images * TEXTS["flickr30k"]]
    return {
        "images": images,
        "pairs": pairs,
        "seconds": took,
        "seconds_of_images": min(encoding, took),
        "batch_size": batch_size,
        "pixels_of_image": float(sizes.prod(1).mean()),
        "tokens_of_text": sum(WORDS) / len(WORDS) + 2,
        "loss": 0.0 if is_finite else math.nan,
    }


def measure(cell: Cell, folder: Path, seconds: float, overrides: Sequence[str]) -> dict[str, Any]:
    """One cell, in this process. What it has no memory for, or cannot do here, is said under "error"."""
    plugins.load()
    peak: Callable[[], dict[str, float]] = dict
    try:
        config = cell.config(folder, overrides)
        parts = Parts(config, PRECISIONS[cell.precision][1], folder)
        peak = peak_of(parts.device)
        with ExitStack() as open_now:
            found = train(parts, cell.compile, seconds, open_now) if cell.kind == "training" else score(parts, seconds)
    except torch.OutOfMemoryError:
        return {**asdict(cell), **peak(), "error": "out of memory"}
    except UserError as error:
        return {**asdict(cell), "error": f"not available: {error}"}
    used = " ".join(parts.precision.description.values())
    workers = config.training.num_workers
    return {**asdict(cell), **found, **peak(), "matmul": parts.matmul, "used": used, "workers": workers}


def peak_of(device: torch.device) -> Callable[[], dict[str, float]]:
    """Bytes of tensors and of the allocator's pools at their highest, from now on; on a CPU of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    return lambda: {"allocated": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def machine() -> dict[str, str | None]:
    """What the figures are taken with, and why Apex is not."""
    no_apex = nvidia_apex.why_no_amp("cuda")
    if not torch.cuda.is_available():
        device = f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
        return {"device": device, "no_apex": no_apex}
    about = torch.cuda.get_device_properties(0)
    return {
        "no_apex": no_apex,
        "device": f"{about.name}, {about.total_memory / 1e9:.0f} GB",
        "capability": f"{about.major}.{about.minor}",
        "CUDA": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
    }


def main(text: str) -> None:
    """What gpu.py starts this process for: prints JSON."""
    asked = json.loads(text)
    if "cell" in asked:
        print(json.dumps(measure(Cell(**asked["cell"]), Path(asked["folder"]), asked["seconds"], asked["overrides"])))
    else:
        print(json.dumps(machine()))
