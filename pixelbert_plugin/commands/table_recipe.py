"""What `pixelbert-data new` writes: a YAML that trains on the table, with sizes and a vocabulary that suit it."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from pixelbert_plugin.commands.table_look import Found, NewConfig
from pixelbert_plugin.data import proposal
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.answers import answer_key

MOST_ANSWERS = 3000  # of a vocabulary (VQA 2.0: 3,129)
MOST_TOKENS = 64  # of a text
EDGES = (128, 96, 64)  # pixels of the shorter side that a small model reads
SEEN = 80_000  # pairs that a small model's training sees, where epochs allow
EPOCHS = (6, 60)  # least and most
WORK = 40_000  # images of 64 × 64 pixels that a small model's training goes through in some minutes of two CPU cores


def written(found: Found, own: NewConfig) -> tuple[str, list[tuple[str, str]]]:
    """The YAML, and what to say of each part of it."""
    parts, train = list(found.samples.values()), found.samples["train"]
    task = found.columns.task
    size = proposal.median_size(parts)
    tokens = min(MOST_TOKENS, 8 * ceil(proposal.text_length(parts) / 8))
    told = [("table", f"{own.table or ', '.join(own.splits.values())}: {sum(map(len, parts)):,} pairs of text and image")]
    told.append(("task", f"{task}: {DESCRIBED[task]}"))
    roles = {role: name for role, name in found.columns.roles.items() if name}
    columns = ", ".join(f"{role} = {name!r}" for role, name in roles.items())
    groups = found.options["columns"].get("groups")
    told.append(("columns", columns + (f"; results also by {', '.join(map(repr, groups))}" if groups else "")))
    counts = ", ".join(_count(split, part, found.columns.use) for split, part in found.samples.items())
    alone = ", an image in one split alone" if found.split_by == "share" else ""
    told.append(("split", f"by {found.split_by}: {counts}{alone}"))
    epochs = min(EPOCHS[1], max(EPOCHS[0], round(SEEN / len(train))))
    edge = _edge(size, epochs * train.num_images)
    long = edge if size is None else min(2 * edge, max(edge, 32 * round(edge * size[1] / size[0] / 32)))
    if own.model == "base":
        edge, long = (
            (600, 1000) if size is None else (min(600, size[0]), min(1000, round(min(600, size[0]) * size[1] / size[0])))
        )
    sizes = "no size could be read" if size is None else f"{size[0]} × {size[1]} pixels (shorter × longer side, the median)"
    told.append(("images", f"{sizes}; read at {edge}, at most {long}"))
    told.append(("words", f"up to {tokens} tokens a text; " + ("learned from train" if own.model == "small" else "BERT's")))
    least = 1
    if task == "vqa":
        least, line, notes = _answers(train)
        told.append(("answers", line))
        found.columns.remarks.extend(notes)
    negatives = _negatives(found.samples, task)
    values = {
        "task": task,
        "run_type": found.run_type,
        "table": _indented(yaml.safe_dump({"table": found.options}, allow_unicode=True, sort_keys=False, width=120)),
        "tokens": tokens,
        "edge": edge,
        "long": long,
        "least": least,
        "name": Path(own.out).stem,
        "remarks": "".join(_comment(remark) for _, remark in found.remarks()),
    }
    recipe = _small(values, task, train, epochs, negatives) if own.model == "small" else _base(values, task, train, negatives)
    return recipe, told


def _count(split: str, part: Samples, use: dict[str, str]) -> str:
    """ "val 40 (20 images)", "val 40 ('dev', 20 images)"."""
    own = f"{use[split]!r:.40}, " if use.get(split, split) != split else ""
    return f"{split} {len(part):,} ({own}{part.num_images:,} image{'' if part.num_images == 1 else 's'})"


def _edge(size: tuple[int, int] | None, images: int) -> int:
    """Pixels of the shorter side: as many as `images`, all that a training goes through, leave time for."""
    for edge in EDGES:
        is_small = size is None or size[0] >= edge
        if is_small and images * (edge / 64) ** 2 <= WORK:
            return edge
    return EDGES[-1]


def _answers(train: Samples) -> tuple[int, str, list[str]]:
    """How often an answer must occur, what to say of the vocabulary, and what is to be noted. Answers are counted as training
    does, by classes of spellings (processors/answers.py)."""
    _, spellings = train.answer_counts()
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for spelling, count in spellings.items():
        if key := answer_key(spelling):
            classes[key][spelling] += count
    counts = Counter({key: found.total() for key, found in classes.items()})
    if len(counts) < 2:
        only = "no answer with a word" if not counts else f"the single answer {next(iter(spellings))!r:.60}"
        raise UserError(
            f"train ({len(train):,} of the table's rows) has {only}, so that there is nothing to learn; add rows with other "
            "answers, or name another column by columns.answer=NAME"
        )
    least = proposal.least_occurrences(counts, MOST_ANSWERS)
    kept = sum(count >= least for count in counts.values())
    (best, number), total = counts.most_common(1)[0], sum(counts.values())
    shown = _by_frequency(classes[best])[0][0]
    line = f"{kept:,} of {len(counts):,}, those of {least} or more rows; {100 * number / total:.0f} % are {shown!r:.60}"
    once = sum(count == 1 for count in counts.values())
    if 2 * once > len(counts) and 4 * once > total:
        line += f"; {once:,} occur once: what stands in one row alone can hardly be learned"
    return least, line, list(_other_spellings(classes))


def _by_frequency(spellings: Counter[str]) -> list[tuple[str, int]]:
    """The first is the one that training predicts."""
    return sorted(spellings.items(), key=lambda spelling: (-spelling[1], spelling[0]))


def _other_spellings(classes: dict[str, Counter[str]]) -> Iterator[str]:
    """A note on answers that are one to learn and are written in several ways."""
    mixed = [_by_frequency(found) for found in classes.values() if len(found) > 1]
    if not mixed:
        return
    rows = sum(count for found in mixed for _, count in found[1:])
    (most, _), (other, _), *_ = max(mixed, key=lambda found: sum(count for _, count in found[1:]))
    yield (
        f"{len(mixed):,} answers are spelled in several ways, as {most!r:.40} and {other!r:.40}; each is learned as one, and "
        f"predicted as most rows have it: of the {rows:,} rows of train that spell it otherwise, those with one answer count "
        "as wrong; spell them alike"
    )


DESCRIBED = {
    "vqa": "questions about an image, answered from a vocabulary",
    "retrieval": "captions found by image, and images by caption",
    "nlvr2": "is a statement true of two images?",
    "pretrain": "masked words, and whether text and image belong together",
}
COMMON = """\
# Written by `pixelbert-data new`; any of it may be changed. `pixelbert-run --describe table` has the data set's options.
run_type: {run_type}
model: pixelbert
task: {task}
datasets: [table]

env:
  data_dir: .  # paths of the table and its images begin in the folder that the command is run in
  save_dir: save/{name}

dataset_config:
{remarks}{table}
processors:
  text:
    type: bert_tokenizer
    params: {{vocabulary: {vocabulary}, max_length: {tokens}}}
  image:
    type: image
    params: {{short_edge: {edge}, long_edge: {long}}}
"""
ANSWERS = """\
  answers:
    type: answers
    params: {{min_occurrences: {least}}}
"""
SMALL = """
model_config:
  pixelbert:
    image_encoder:
      type: resnet18
      params: {{max_pool: false}}  # from random weights; stride 32
    text_encoder:
      type: bert
      params:
        hidden_size: 128
        num_hidden_layers: 2
        num_attention_heads: 4
        intermediate_size: 512
        max_position_embeddings: {tokens}
        dropout: 0.1
        attention_dropout: 0.0
        initializer_range: 0.088  # 128^-0.5: BERT's 0.02 suits a width of 768
    pixel_layer_norm: true

optimizer:
  cnn: {{type: adamw, params: {{lr: 5.0e-4, weight_decay: 0.01}}}}
  transformer: {{type: adamw, params: {{lr: 5.0e-4}}}}

scheduler:
  type: cosine
  params: {{warmup_updates: {warmup}}}

training:
  batch_size: {batch}
  texts_per_image: {texts}
  max_epochs: {epochs}
  evaluation_interval_epochs: {interval}
  checkpoint_interval_epochs: {interval}
  num_workers: 1
"""
BASE = """
model_config:
  pixelbert:
    image_encoder:
      type: resnet50
      params: {{weights: IMAGENET1K_V1}}  # torchvision's, fetched once
    text_encoder:
      type: bert
      params: {{weights: bert-base-uncased}}  # of Hugging Face's hub, fetched once

optimizer:
  cnn: {{type: sgd}}
  transformer: {{type: adamw}}

scheduler:
  type: step
  params: {{milestones: [12, 16], warmup_updates: {warmup}}}

training:
  batch_size: {batch}
  micro_batch_size: 16
  texts_per_image: {texts}
  max_epochs: 18
  evaluation_interval_epochs: 1
  checkpoint_interval_epochs: 1
  bucket_by_size: true
"""
TASK_OPTIONS = {
    "vqa": "\ntask_config:\n  vqa: {image_answers_weight: 1.0}  # a CNN without ImageNet weights is taught the answers too\n",
    "retrieval": "\ntask_config:\n  retrieval: {num_negatives: NEGATIVES, num_hardest: HARDEST, max_val_images: 200}\n",
}


def _small(values: dict[str, Any], task: str, train: Samples, epochs: int, negatives: int) -> str:
    is_by_image = task == "retrieval"
    batch = 32 if is_by_image else 64 if len(train) < 10_000 else 256
    batch = max(2, min(batch, len(train) // 4))
    updates = max(1, round(epochs * len(train) / batch))
    values |= {
        "vocabulary": "train",
        "batch": batch,
        "texts": 1 if is_by_image else "null",
        "epochs": epochs,
        "interval": max(1, round(epochs / 10)),
        "warmup": max(1, min(100, updates // 10)),
    }
    text = COMMON + (ANSWERS if task == "vqa" else "") + SMALL
    return text.format(**values) + _task_options(task, negatives)


def _base(values: dict[str, Any], task: str, train: Samples, negatives: int) -> str:
    batch = max(2, min(128, len(train) // 4))
    values |= {
        "vocabulary": "bert-base-uncased",
        "batch": batch,
        "texts": 1 if task == "retrieval" else 4,
        "warmup": max(1, min(500, len(train) // batch)),
    }
    text = COMMON + (ANSWERS if task == "vqa" else "") + BASE
    return text.format(**values) + (_task_options(task, negatives) if task == "retrieval" else "")


def _task_options(task: str, negatives: int) -> str:
    text = TASK_OPTIONS.get(task, "")
    return text.replace("NEGATIVES", str(negatives)).replace("HARDEST", str(max(1, min(5, negatives // 2))))


def _negatives(samples: dict[str, Samples], task: str) -> int:
    """How many texts of other images a text is told from; 0 for tasks without. Raises UserError where an image has none."""
    if task not in ("pretrain", "retrieval"):
        return 0
    found = 20
    for split, part in samples.items() if task == "pretrain" else [("train", samples["train"])]:
        texts = [text.lower() for text in part.texts()]
        counts = Counter(texts)
        own: dict[int, set[str]] = defaultdict(set)  # the texts of each image
        for image, text in zip(part.images_M.tolist(), texts, strict=True):
            own[image].add(text)
        others = {image: len(texts) - sum(counts[text] for text in its) for image, its in own.items()}
        poorest = min(others, key=others.__getitem__)
        if not others[poorest]:
            name = part[part.images_M.tolist().index(poorest)].image_ids[0]
            raise UserError(
                f"task {task} tells an image's text from those of other images, and in {split} none differs from those of "
                f"{name!r:.80} (different texts: {len(counts):,}, images: {part.num_images:,}); it needs texts of each image"
                + ("" if split == "train" else f", and more images in {split}")
                + (", or task=vqa answers" if task == "pretrain" else "")
            )
        found = min(found, max(1, len(counts) // 4), others[poorest])
    return found


def _comment(text: str) -> str:
    return textwrap.fill(text, 120, initial_indent="  # ", subsequent_indent="  #   ", break_long_words=False) + "\n"


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
