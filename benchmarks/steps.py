"""Training steps, scoring every pair, and one answer: the naive way's time over ours, outputs shown to be equal.

    python benchmarks/steps.py [--rounds 3] [--short-edge 384] [--only NAME …] > benchmarks/steps.txt
    python benchmarks/steps.py --only compiled [--short-edge 224]   training.compile=blocks, which compiles for minutes first

Both ways are ResNet-50 and BERT-base from the same random weights, on pictures of one size (4:3) and texts of random words; the
naive one is benchmarks/naive.py. A step is a forward and backward pass, clipping, and both optimizers' update. Ratios count
processor time, the median of interleaved rounds. Dropout is on in the steps, and off where outputs are compared.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from naive import VOCABULARY, NaivePixelBert, optimizers
from PIL import Image
from side_by_side import HEAD, Ratio, compare, largest_difference, machine
from torch import Tensor, nn

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import build_optimizers
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.collate import read_positions
from pixelbert_plugin.data.image_features import ImageFeatures
from pixelbert_plugin.distributed.parallel import Alone, Losses
from pixelbert_plugin.distributed.processes import Processes
from pixelbert_plugin.loading import LoadedModel
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.registry.schema import Component
from pixelbert_plugin.system.linux import huge_pages
from pixelbert_plugin.training.compilation import compile_blocks
from pixelbert_plugin.training.step import Step
from pixelbert_plugin.types import Batch

TOKENS = 16  # of a text, [CLS] and [SEP] included
ANSWERS = 3129


def vocabulary(folder: Path) -> Path:
    """BERT's size, of words w5, w6, …"""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(5, VOCABULARY))]
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


class Setting:
    """A task with its model, ours and the naive one of the same weights."""

    def __init__(self, name: str, folder: Path, size: tuple[int, int], precision: str = "fp32", frozen: bool = False):
        answers = folder / "answers.txt"
        answers.write_text("\n".join(f"answer{number}" for number in range(ANSWERS)))
        self.config = configuration.complete(
            RunConfig(
                task=name,
                datasets=["vqa2"],
                optimizer={"cnn": Component("sgd"), "transformer": Component("adamw")},
                model_config={
                    "pixelbert": {
                        "num_sampled_pixels": 100 if name == "pretrain" else None,
                        "freeze_image_encoder": frozen,
                    }
                },
            )
        )
        text = {"vocabulary": str(folder), "max_length": TOKENS}
        self.processors = {
            "text": registry.build("processor", "bert_tokenizer", text, "p"),
            "image": registry.build("processor", "image", {"short_edge": size[0], "long_edge": size[1]}, "p"),
            "answers": registry.build("processor", "answers", {"vocabulary": str(answers)}, "p"),
        }
        self.task = registry.build("task", name, {}, f"task_config.{name}", processors=self.processors)
        torch.manual_seed(0)
        options = self.config.model_config["pixelbert"]
        heads = self.task.heads()
        self.model = registry.build("model", "pixelbert", options, "m", vocab_size=VOCABULARY, pad_token_id=0, heads=heads)
        self.naive = NaivePixelBert(heads, options.num_sampled_pixels)
        self.naive.load_ours(self.model)
        self.naive.cnn.requires_grad_(not frozen)
        self.size, self.precision, self.frozen = size, precision, frozen

    def batch(self, images: int, texts: int, rows: int = 1, seed: int = 1) -> Batch:
        """`texts` samples to each of the images, of `rows` texts each: the sample's own, then its negatives."""
        draw = torch.Generator().manual_seed(seed)
        samples = images * texts
        ids = torch.randint(5, VOCABULARY, (samples * rows, TOKENS), generator=draw)
        ids[:, 0], ids[:, -1] = 2, 3
        batch = Batch(
            sample_ids=list(range(samples)),
            input_ids=ids,
            text_mask=torch.ones_like(ids, dtype=torch.bool),
            images=torch.randn(images, 3, *self.size, generator=draw),
            image_sizes=torch.tensor([self.size] * images),
            image_index=torch.arange(images).repeat_interleave(texts * rows)[:, None],
            image_seeds=torch.arange(images),
            weights=torch.ones(samples),
        )
        if "answers" in self.task.heads():
            batch.targets["answers"] = (torch.rand(samples, ANSWERS, generator=draw) < 3 / ANSWERS).float()
        else:
            self.task.prepare(batch, list(range(samples)))
        batch.read_positions = read_positions(batch)  # as the product's loader does for these tasks
        return batch

    def our_step(
        self, batch: Batch, read: Callable[[], Batch] | None = None, is_compiled: bool = False
    ) -> Callable[[], object]:
        """An update of the product's own Step, one micro-batch, which is `read` each time where that is given."""
        model = copy.deepcopy(self.model).train()
        made = build_optimizers(self.config.optimizer, model)
        precision = registry.build("precision", self.precision, {}, "p", device=torch.device("cpu"))
        precision.prepare(model, made)
        step = Step(
            parallel=Alone(Losses(model, self.task, precision)),
            task=self.task,
            optimizers=made,
            schedule=lambda update, epoch: 1.0,
            precision=precision,
            processes=Processes(),
            seed=1,
            max_grad_norm=1.0,
        )
        if not is_compiled:
            return lambda: step([batch if read is None else read()], 1, 0.0)
        compilation = compile_blocks(model, "pixelbert", torch.device("cpu"))

        def compiled_step() -> None:
            with compilation.going_on():
                step([batch], 1, 0.0)

        return compiled_step

    def naive_step(self, batch: Batch, losses: "NaiveLoss") -> Callable[[], object]:
        """The same pairs, each with its own copy of the image."""
        model = copy.deepcopy(self.naive).train()
        steps = optimizers(model)
        images = batch.images[batch.image_index[:, 0]]

        def step() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                if self.frozen:  # whoever freezes a CNN sends each image through it once
                    with torch.no_grad():
                        features = model.cnn.eval()(batch.images)
                    values = F.max_pool2d(features, 2).flatten(2).transpose(1, 2)
                    pixels = (model.projection(values) + model.pixel_embedding)[batch.image_index[:, 0]]
                    logits = model.logits(model.fuse(batch.input_ids, batch.text_mask, pixels), TOKENS)
                else:
                    logits = model(batch.input_ids, batch.text_mask, images)
            losses(logits, batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for each in steps:
                each.step()
                each.zero_grad()

        return step

    @torch.no_grad()
    def difference(self, batch: Batch) -> float:
        """Of the logits of both, in evaluation."""
        ours, naive = self.model.eval(), self.naive.eval()
        found, expected = ours(batch).logits, naive(batch.input_ids, batch.text_mask, batch.images[batch.image_index[:, 0]])
        if "mlm" in expected:
            expected["mlm"] = expected["mlm"].flatten(0, 1)[batch.targets["mlm_positions"]]
        return max(largest_difference(expected[head], found[head]) for head in expected)

    def compiled_difference(self, batch: Batch) -> float:
        """Of the logits of our blocks, compiled and as they are written, in training without dropout."""
        written = copy.deepcopy(self.model).train()
        for module in written.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        compiled = copy.deepcopy(written)
        with compile_blocks(compiled, "pixelbert", torch.device("cpu")).going_on():
            expected, found = written(batch).logits, compiled(batch).logits
        return max(largest_difference(expected[head], found[head]) for head in expected)


NaiveLoss = Callable[[dict[str, Tensor], Batch], Tensor]


def pretrain_losses(logits: dict[str, Tensor], batch: Batch) -> Tensor:
    """The mean over masked words of true pairs, and over pairs."""
    labels = torch.full((len(batch.input_ids) * TOKENS,), -100)
    labels[batch.targets["mlm_positions"]] = batch.targets["mlm"]
    is_true = torch.tensor([1, 0]).repeat(len(batch))
    mlm = F.cross_entropy(logits["mlm"].flatten(0, 1).float(), labels, ignore_index=-100)
    return mlm + F.cross_entropy(logits["itm"].float(), is_true)


def vqa_loss(logits: dict[str, Tensor], batch: Batch) -> Tensor:
    targets = batch.targets["answers"]
    return F.binary_cross_entropy_with_logits(logits["answers"].float(), targets, reduction="none").sum(1).mean()


def retrieval_loss(logits: dict[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of the true text among the hardest five and itself; the other negatives count as constants."""
    scores = (logits["itm"][:, 1] - logits["itm"][:, 0]).float().view(len(batch), -1)
    hardest = scores[:, 1:].topk(5, dim=1).indices + 1
    kept = scores.detach().scatter(1, hardest, scores.gather(1, hardest))
    return F.cross_entropy(torch.cat([scores[:, :1], kept[:, 1:]], 1), torch.zeros(len(scores), dtype=torch.int64))


def steps(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    for setting, what, batch, losses in settings(folder, size):
        note = f"outputs within {setting.difference(batch):.0e}"
        yield compare(what, setting.naive_step(batch, losses), setting.our_step(batch), rounds, note)


def compiled(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """With training.compile=blocks: beside the naive way, and beside the same step without."""
    for setting, what, batch, losses in settings(folder, size):
        if setting.precision != "fp32":
            continue
        note = f"outputs within {setting.compiled_difference(batch):.0e}"
        ours = setting.our_step(batch, is_compiled=True)
        yield compare(f"{what}, compiled", setting.naive_step(batch, losses), ours, rounds, note)
        yield compare("  and beside ours uncompiled", setting.our_step(batch), ours, rounds, note)


def settings(folder: Path, size: tuple[int, int]) -> Iterator[tuple[Setting, str, Batch, NaiveLoss]]:
    """The steps that are measured: what they are, their batch, and the naive way's loss."""
    rows = (
        ("pretrain", "pre-training step, 10 pairs an image", "fp32", (2, 5, 2), pretrain_losses, False),
        ("pretrain", "pre-training step, bf16", "bf16", (2, 5, 2), pretrain_losses, False),
        ("vqa", "VQA step, 4 questions an image", "fp32", (2, 4, 1), vqa_loss, False),
        ("retrieval", "retrieval step, 21 texts an image", "fp32", (2, 1, 21), retrieval_loss, True),
    )
    for task, what, precision, (images, texts, each), losses, frozen in rows:
        setting = Setting(task, folder, size, precision, frozen)
        yield setting, what, setting.batch(images, texts, each), losses


def kept(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """With training.cache_features: what is read instead of an image, and the retrieval step that begins with it."""
    setting = Setting("retrieval", folder, size, frozen=True)
    processor, precision = setting.processors["image"], registry.build("precision", "fp32", {}, "p", device=torch.device("cpu"))
    encoder, naive = setting.model.image_encoder, setting.naive.eval()
    features = ImageFeatures(encoder, {}, processor, precision, torch.device("cpu"), folder / "features", max_gb=1)
    files = [picture(folder / f"picture{number}.jpg", size, number) for number in range(2)]
    batch, store = setting.batch(2, 1, 21), features.opened()
    names = [store.name(file) for file in files]
    transform = from_file(size)

    def read() -> Batch:
        """As the loader does it, in one process."""
        found = [store.find(name) for name in names]
        decoded = [processor.decode(file) if kept is None else kept for file, kept in zip(files, found, strict=True)]
        return features.ready(replace(batch, images=decoded, feature_names=names))

    @torch.no_grad()
    def computed() -> Tensor:
        values = F.max_pool2d(naive.cnn(torch.stack([transform(Image.open(file).convert("RGB")) for file in files])), 2)
        return values.flatten(2).transpose(1, 2)

    note = f"outputs within {largest_difference(computed(), read().features.pixels):.0e}"
    yield compare("features of 2 JPEGs, kept", computed, lambda: read().features, 3 * rounds, note)

    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    whole = replace(batch, images=images, image_sizes=torch.tensor([size] * 2))
    with torch.no_grad():
        expected = naive(batch.input_ids, batch.text_mask, images[batch.image_index[:, 0]])["itm"]
        note = f"outputs within {largest_difference(expected, setting.model.eval()(read()).logits['itm']):.0e}"
    what = "retrieval step, 21 texts, features kept"
    yield compare(what, setting.naive_step(whole, retrieval_loss), setting.our_step(batch, read), rounds, note)


@torch.no_grad()
def scores_of_all(setting: Setting, batch: Batch, numbers: str = "fp32") -> Tensor:
    """Every image of the batch with every text, as evaluation/retrieval.py scores them. Images × texts."""
    from pixelbert_plugin.evaluation.retrieval import _score

    model, precision = setting.model.eval(), registry.build("precision", numbers, {}, "p", device=torch.device("cpu"))
    with precision.autocast():
        images, words = model.encode_images(batch), model.embed_texts(batch.input_ids)
    return torch.from_numpy(_score(model, setting.task, images, words, batch.text_mask, 256, precision))


@torch.no_grad()
def scoring(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """4 images with 40 texts: our model as evaluation/retrieval.py calls it, and a forward for 32 pairs at a time."""
    score_naive, score_ours, score_in_bf16 = scorings(folder, size)
    note = f"outputs within {largest_difference(score_naive(), score_ours()):.0e}"
    yield compare("retrieval, every pair", score_naive, score_ours, rounds, note)
    note = f"outputs within {largest_difference(score_ours(), score_in_bf16(), 0.3):.0e}"
    yield compare("  and ours in float32 beside ours in bf16", score_ours, score_in_bf16, rounds, note)


def scorings(folder: Path, size: tuple[int, int]) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Callable[[], Tensor]]:
    """The same scores, images × texts: the naive way, ours, and ours in bf16."""
    setting = Setting("retrieval", folder, size)
    naive, batch = setting.naive.eval(), setting.batch(4, 10)

    @torch.no_grad()
    def score_naive() -> Tensor:
        found = []
        pairs = [(image, text) for image in range(4) for text in range(40)]
        for at in range(0, len(pairs), 32):
            rows = torch.tensor(pairs[at : at + 32])
            logits = naive(batch.input_ids[rows[:, 1]], batch.text_mask[rows[:, 1]], batch.images[rows[:, 0]])["itm"]
            found.append(logits[:, 1] - logits[:, 0])
        return torch.cat(found).view(4, 40)

    return score_naive, lambda: scores_of_all(setting, batch), lambda: scores_of_all(setting, batch, "bf16")


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """A JPEG of noise, half as large again as the model takes it: one of more than twice the size ours would reduce first."""
    height, width = (round(1.5 * edge) for edge in size)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def from_file(size: tuple[int, int]) -> Callable[[Image.Image], Tensor]:
    """Pillow's image as a model takes it, as it is mostly written."""
    import torchvision.transforms.v2 as T

    return T.Compose(
        [
            T.PILToTensor(),
            T.ToDtype(torch.float32, scale=True),
            T.Resize(size, antialias=True),
            T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


@torch.no_grad()
def answer(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """From a JPEG and a question to the most likely answer."""
    import transformers

    setting = Setting("vqa", folder, size)
    picture(folder / "picture.jpg", size)
    question = " ".join(f"w{number}" for number in range(100, 100 + TOKENS - 2))
    naive = setting.naive.eval()
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    transform = from_file(size)

    def answer_naive() -> Tensor:
        image = transform(Image.open(folder / "picture.jpg").convert("RGB"))[None]
        text = tokenizer(question, return_tensors="pt")
        return naive(text["input_ids"], text["attention_mask"].bool(), image)["answers"]

    ways = (("", False, "fp32"), (", fast", True, "fp32"), (", fast, bf16", True, "bf16"))
    for name, fast, precision in ways:
        parts = (setting.config, setting.processors, setting.task, torch.device("cpu"), folder)
        numbers = registry.build("precision", precision, {}, "p", device=torch.device("cpu"))
        loaded = LoadedModel(copy.deepcopy(setting.model).eval(), *parts, numbers, fast)

        def answer_ours(loaded: LoadedModel = loaded) -> Tensor:
            return loaded(folder / "picture.jpg", question).logits["answers"].float()

        bound = 0.1 if precision == "bf16" else 1e-3
        note = f"outputs within {largest_difference(answer_naive(), answer_ours(), bound):.0e}"
        yield compare(f"one answer on a CPU, batch 1{name}", answer_naive, answer_ours, 3 * rounds, note)


def images(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """Eight uint8 pictures of 480 × 640 to the model's size, normalised: in one stack, as it is mostly written, and ours."""
    import torchvision.transforms.v2.functional as T

    draw = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (3, 480, 640), generator=draw, dtype=torch.uint8) for _ in range(8)]
    processor = registry.build("processor", "image", {}, "p")  # the paper's 800 by 1333
    mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (processor.config.mean, processor.config.std))
    target = list(processor.resized(480, 640))

    def stacked() -> Tensor:
        return (T.resize(torch.stack(pictures).float(), target, antialias=True) - mean) / std

    note = f"outputs within {largest_difference(stacked(), processor(pictures)[0]):.0e}"
    what = f"8 images to {target[0]} × {target[1]}, normalised"
    yield compare(what, stacked, lambda: processor(pictures), 3 * rounds, note)


PROGRAMS = {function.__name__: function for function in (images, steps, kept, scoring, answer, compiled)}


def run(doc: str | None, programs: dict[str, Any], usual: list[str], versions: str = "", head: str = HEAD) -> None:
    """A command line that prints the rows of these programs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each pair, interleaved; 0: outputs alone are looked at")
    parser.add_argument("--short-edge", type=int, default=384, help="pixels; the longer edge is 4/3 of it")
    parser.add_argument("--only", nargs="+", choices=programs, default=usual)
    arguments = parser.parse_args()
    huge_pages()
    plugins.load()
    size = (arguments.short_edge, arguments.short_edge * 4 // 3)
    print(machine() + versions)
    print(f"images of {size[0]} × {size[1]}, texts of {TOKENS} tokens")
    print(f"\n{head}")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary(Path(folder))
        for name in arguments.only:
            for row in programs[name](Path(folder), size, arguments.rounds):
                print(row, flush=True)


if __name__ == "__main__":
    run(__doc__, PROGRAMS, [name for name in PROGRAMS if name != "compiled"])
