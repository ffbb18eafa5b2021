"""transformers' ViLT and this package's Pixel-BERT on the same pictures and texts: ViLT's processor time over ours.

    python benchmarks/vilt.py [--rounds 3] [--short-edge 384] [--only NAME …] > benchmarks/vilt.txt

ViLT (Kim et al. 2021) is the peer without a CNN: patches of 32 × 32 pixels go into the transformer as they are. It is another
model, so outputs cannot be equal; they are looked at for shape and for being finite. What is compared is named in each row:
parameters, and operations of what the row does once, as torch counts them (a multiply-add as two). ViLT is transformers' own
classes in the configuration of vilt-b32, as they are called: each pair with its image's pixels, whose patches are embedded anew
for each text. Ours is Pixel-BERT with ResNet-50, by the product's own Step, scoring and `load`. Both from random weights, in
float32, on as many threads, on pictures of one size (4:3) and texts of 16 tokens; a training step is a forward and backward
pass, clipping and the optimizers' update. ViLT's configuration has no dropout, ours 0.1. Medians of interleaved rounds.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from side_by_side import HEAD, Ratio, compare
from steps import ANSWERS, TOKENS, Setting, picture, run, scores_of_all
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pixelbert_plugin.loading import LoadedModel
from pixelbert_plugin.types import Batch

PAIRS_AT_A_TIME = 32  # where every pair is scored


class Pretraining(nn.Module):
    """ViltForMaskedLM with the head for matching that it was pre-trained with, which transformers leaves out."""

    def __init__(self, config: transformers.ViltConfig):
        super().__init__()
        self.vilt = transformers.ViltForMaskedLM(config)
        self.itm = nn.Linear(config.hidden_size, 2)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.vilt.vilt(**inputs)
        return self.vilt.mlm_score(hidden.last_hidden_state[:, :TOKENS]), self.itm(hidden.pooler_output)


def peer(kind: type[nn.Module], **options: int) -> nn.Module:
    torch.manual_seed(0)
    return kind(transformers.ViltConfig(**options))


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """Each pair with its own copy of the image."""
    images = batch.images[batch.image_index[:, 0]]
    return {"input_ids": batch.input_ids, "attention_mask": batch.text_mask.long(), "pixel_values": images}


def peer_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """As for ours: backward pass, clipping, and AdamW as torch has it."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-2)

    def step() -> Tensor:
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    return step


def row(
    what: str, vilt: nn.Module, ours: nn.Module, works: tuple[Callable[[], Tensor], Callable[[], Tensor]], rounds: int
) -> Ratio:
    """Both ways, and what they are. Raises ValueError where an output is not finite, or of another shape than the other's."""
    notes, outputs = [], []
    for name, model, work in zip(("ViLT", "ours"), (vilt, ours), works, strict=True):
        # attention as matrix products, which are counted where a CPU's fused kernel is not
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            outputs.append(work())
        parameters = sum(parameter.numel() for parameter in model.parameters())
        notes.append(f"{name} {parameters / 1e6:.0f} M parameters, {counter.get_total_flops() / 1e9:,.1f} GFLOP")
    if outputs[0].shape != outputs[1].shape or not all(output.isfinite().all() for output in outputs):
        shapes = " and ".join(str(tuple(output.shape)) for output in outputs)
        raise ValueError(f"{what}: outputs of shapes {shapes} are not alike, or not finite")
    return compare(what, *works, rounds, "; ".join(notes), is_warm=True)


def vqa(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """An image with 4 questions."""
    setting = Setting("vqa", folder, size)
    batch = setting.batch(1, 4)
    model, inputs = peer(transformers.ViltForQuestionAnswering, num_labels=ANSWERS), inputs_of(batch)
    theirs = peer_step(model, lambda: model(**inputs, labels=batch.targets["answers"]).loss)
    yield row("VQA step, 4 questions an image", model, setting.model, (theirs, losses(setting.our_step(batch))), rounds)


def pretraining(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """An image with 5 texts, and a false one to each of these."""
    setting = Setting("pretrain", folder, size)
    batch = setting.batch(1, 5, 2)
    model, inputs = peer(Pretraining), inputs_of(batch)
    labels = torch.full((len(batch.input_ids) * TOKENS,), -100)
    labels[batch.targets["mlm_positions"]] = batch.targets["mlm"]
    is_true = torch.tensor([1, 0]).repeat(len(batch))

    def loss() -> Tensor:
        mlm, itm = model(**inputs)
        return F.cross_entropy(mlm.flatten(0, 1), labels, ignore_index=-100) + F.cross_entropy(itm, is_true)

    works = (peer_step(model, loss), losses(setting.our_step(batch)))
    yield row("pre-training step, 10 pairs an image", model, setting.model, works, rounds)


def losses(step: Callable[[], object]) -> Callable[[], Tensor]:
    """Our step, its loss alone."""

    def taken() -> Tensor:
        parts, _ = step()
        return sum(parts.values())

    return taken


@torch.no_grad()
def scoring(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """2 images with 10 texts, every pair."""
    setting = Setting("retrieval", folder, size)
    batch = setting.batch(2, 5)
    model = peer(transformers.ViltForImageAndTextRetrieval).eval()
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(10))

    def theirs() -> Tensor:
        found = []
        for rows in pairs.split(PAIRS_AT_A_TIME):
            texts = {"input_ids": batch.input_ids[rows[:, 1]], "attention_mask": batch.text_mask[rows[:, 1]].long()}
            found.append(model(**texts, pixel_values=batch.images[rows[:, 0]]).logits[:, 0])
        return torch.cat(found).view(2, 10)

    works = (theirs, lambda: scores_of_all(setting, batch))
    yield row("retrieval, every pair of 2 × 10", model, setting.model, works, rounds)


@torch.no_grad()
def answer(folder: Path, size: tuple[int, int], rounds: int) -> Iterator[Ratio]:
    """From a JPEG and a question to every answer's logit, by transformers' own processor and by ours."""
    setting = Setting("vqa", folder, size)
    file = picture(folder / "picture.jpg", size)
    question = " ".join(f"w{number}" for number in range(100, 100 + TOKENS - 2))
    model = peer(transformers.ViltForQuestionAnswering, num_labels=ANSWERS).eval()
    processor = transformers.ViltProcessor(
        transformers.ViltImageProcessor(size={"shortest_edge": size[0]}),
        transformers.BertTokenizer(str(folder / "vocab.txt")),
    )

    def theirs() -> Tensor:
        return model(**processor(Image.open(file).convert("RGB"), question, return_tensors="pt")).logits

    for name, is_fast in (("", False), (", fast", True)):
        parts = (setting.config, setting.processors, setting.task, torch.device("cpu"), folder)
        loaded = LoadedModel(setting.model.eval(), *parts, None, is_fast)
        works = (theirs, lambda loaded=loaded: loaded(file, question).logits["answers"])
        yield row(f"one answer on a CPU, batch 1{name}", model, setting.model, works, 3 * rounds)


PROGRAMS = {function.__name__: function for function in (vqa, pretraining, scoring, answer)}


if __name__ == "__main__":
    run(
        __doc__, PROGRAMS, list(PROGRAMS), f", transformers {transformers.__version__}, float32", HEAD.replace("naive", " ViLT")
    )
