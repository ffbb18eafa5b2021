"""`pixelbert-data new table=my.csv images=photos out=my.yaml`: looks at a table, and writes a YAML that trains on it."""

import os
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from math import ceil
from pathlib import Path
from typing import Any, Literal

import yaml

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import EnvConfig
from pixelbert_plugin.data import proposal
from pixelbert_plugin.data.builders.table import ColumnsConfig, SharesConfig, TableBuilder, TableConfig
from pixelbert_plugin.data.files import missing_files
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.registry.schema import ConfigError, FilePath

MOST_ANSWERS = 3000  # of a vocabulary (VQA 2.0: 3,129)
MOST_TOKENS = 64  # of a text
EDGES = (128, 96, 64)  # pixels of the shorter side that a small model reads
SEEN = 80_000  # pairs that a small model's training sees, where epochs allow
EPOCHS = (6, 60)  # least and most
WORK = 40_000  # images of 64 × 64 pixels that a small model's training goes through in some minutes of two CPU cores
TASKS = ("vqa", "retrieval", "nlvr2", "pretrain")
KEY = "dataset_config.table"
NOT_AS_GIVEN = ("columns", "shares", "outside_images", "images")  # options that are written as they were found


@dataclass(kw_only=True)
class NewConfig:
    """Beside these, all options of the data set (`pixelbert-run --describe table`)."""

    table: FilePath | None = None  # the table: CSV, TSV, JSON Lines, JSON or Parquet; with format=datasets a Hugging Face name
    splits: dict[str, FilePath] = field(default_factory=dict)  # instead: the file of each split, {train: a.csv, val: b.csv}
    out: FilePath = ""  # the .yaml to write
    images: FilePath = ""  # folder that the images' paths begin in. "": it is looked for beside the table
    task: Literal["auto", "vqa", "retrieval", "nlvr2", "pretrain"] = "auto"  # what is learned. auto: as the columns say
    model: Literal["small", "base"] = "small"  # small: from random weights, on a CPU; base: ResNet-50 and BERT, for a GPU
    format: str = "auto"  # of the table. auto: by its name
    subset: str | None = None  # of a Hugging Face name, the configuration
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)  # the table's columns. None: they are guessed
    shares: SharesConfig = field(default_factory=SharesConfig)  # of val and test, where the table does not say them
    answer_separator: str | None = None  # what divides answers. None: it is guessed
    encoding: str = "utf-8"  # of text files
    delimiter: str | None = None  # of a CSV. None: by its header
    quotes: bool = True  # whether quotation marks around a cell are none of its text
    outside_images: bool = False  # whether images may lie outside the folder
    overwrite: bool = False  # write over `out`

    def check(self) -> None:
        if not self.out:
            raise ValueError("out: is not set; give out=my.yaml")
        if not self.out.endswith((".yaml", ".yml")):
            raise ValueError("out: must end in .yaml")


@dataclass(frozen=True)
class Found:
    """The table as it was read."""

    columns: proposal.Columns
    options: dict[str, Any]  # of the data set, those that differ from the defaults
    run_type: str
    samples: dict[str, Samples]  # by train, val and test


def new(own: NewConfig) -> str:
    """Write the configuration. Returns what was found, and the commands that go on. Raises UserError with the rows of what is
    wrong in the table."""
    out = Path(own.out)
    if out.exists() and not own.overwrite:
        raise ConfigError("out", f"{own.out!r} is there already; name another file, or give overwrite=true")
    if not out.parent.is_dir():
        raise ConfigError("out", f"{own.out!r}: there is no folder {str(out.parent)!r}")
    found = _look(own)
    text, told = _written(found, own)
    with writing(out, "out"):
        out.write_text(text, encoding="utf-8")
    lines = [f"{name:<12}{line}" for name, line in told]
    lines += [f"{'note':<12}{remark}" for remark in found.columns.remarks]
    run = out.stem
    after = f"pixelbert-run config={own.out}\npixelbert-demo checkpoint=save/{run}"
    return "\n".join(lines) + f"\n\n{own.out} trains and evaluates it; then a page asks what was trained:\n\n{after}"


def _look(own: NewConfig) -> Found:
    """Read the whole table once."""
    if own.table is not None and not own.splits and own.format != "datasets" and Path(own.table).is_dir():
        raise ConfigError(
            "table",
            f"{own.table!r}: is a folder; name the file, a pattern such as {own.table.rstrip('/')}/*.parquet, or "
            "format=datasets for a folder that Hugging Face's datasets knows",
        )
    names = {item.name for item in fields(TableConfig)}
    given = {key: value for key, value in vars(own).items() if key in names and value != _default(key)}
    given |= {"columns": _set(asdict(own.columns)), "shares": asdict(own.shares), "outside_images": own.outside_images}
    first = _builder(given, Path())
    is_split = bool(own.splits) or (own.format == "datasets" and len(first.own_splits()) > 1)
    tables = first.tables(next(iter(own.splits), "train")) if is_split else first.tables("train")
    for table in tables:
        table.columns  # noqa: B018  # raises where it cannot be read
    known = {name: value for name, value in asdict(own.columns).items() if name != "groups"}
    task = None if own.task == "auto" else own.task
    images = os.path.normpath(own.images) if own.images and "{" not in own.images else own.images
    columns = proposal.find_columns(tables, known, images, Path(), task, is_split)
    roles = {role: name for role, name in columns.roles.items() if name != role}
    options: dict[str, Any] = {key: value for key, value in given.items() if key not in NOT_AS_GIVEN}
    if columns.images:
        options["images"] = columns.images
    groups = own.columns.groups if own.columns.groups is not None else columns.groups
    if groups:
        roles["groups"] = groups  # type: ignore[assignment]
    options["columns"] = roles
    if own.shares != SharesConfig():
        options["shares"] = asdict(own.shares)
    if own.outside_images:
        options["outside_images"] = True
    if own.answer_separator is None and columns.answer_separator is not None:
        options["answer_separator"] = columns.answer_separator
    if columns.on_empty != "error":
        options["on_empty"] = columns.on_empty
    use = proposal.splits_of(list(own.splits)) if own.splits else columns.use
    if is_split and not own.splits:
        use = proposal.splits_of(first.own_splits())
    use = {split: name for split, name in use.items() if split != name}
    if use:
        options["use"] = use
    builder = _builder({**options, "on_bad_image": "skip"}, Path())
    held = [split for split in ("train", "val", "test") if builder.has_split(split)]
    if "train" not in held:
        raise UserError(
            f"{KEY}: there is no training split among {', '.join(builder.own_splits())}; name it by splits or shares"
        )
    samples = {split: builder.samples(split) for split in held}
    held = [split for split in held if len(samples[split])]
    if "train" not in held:
        raise UserError(f"{KEY}: no row is left for training{''.join(f'; {remark}' for remark in columns.remarks)}")
    for split in held:
        _look_for_images(builder, split, samples[split], columns, options)
    return Found(columns, options, "_".join(held), {split: samples[split] for split in held})


def _look_for_images(
    builder: TableBuilder, split: str, samples: Samples, columns: proposal.Columns, options: dict[str, Any]
) -> None:
    """Missing images are told with their rows, and left out; most of them missing is an error."""
    missing = missing_files(samples.image_paths())
    if not missing:
        return
    told = builder.told_missing(builder.source_split(split), missing, samples.num_images)
    if 2 * len(missing) > samples.num_images:
        raise UserError(f"{told}; images=FOLDER says where they are")
    columns.remarks.append(f"{told}; their rows are left out (on_bad_image: skip)")
    options["on_bad_image"] = "skip"


def _builder(options: dict[str, Any], data_dir: Path) -> TableBuilder:
    cache = EnvConfig().cache_dir
    folder = None if cache is None else Path(os.path.expanduser(cache))
    found: TableBuilder = registry.build("builder", "table", options, KEY, data_dir=data_dir, cache_dir=folder)
    return found


def _default(key: str) -> Any:
    return getattr(NewConfig(out="x.yaml"), key)


def _set(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _written(found: Found, own: NewConfig) -> tuple[str, list[tuple[str, str]]]:
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
    split_by = (
        "files" if own.splits or own.format == "datasets" else f"column {roles['split']!r}" if "split" in roles else "share"
    )
    counts = ", ".join(f"{split} {len(part):,} ({part.num_images:,} images)" for split, part in found.samples.items())
    told.append(("split", f"by {split_by}: {counts}" + (", an image in one split alone" if split_by == "share" else "")))
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
        least, line = _answers(train)
        told.append(("answers", line))
    values = {
        "task": task,
        "run_type": found.run_type,
        "table": _indented(yaml.safe_dump({"table": found.options}, allow_unicode=True, sort_keys=False, width=120)),
        "tokens": tokens,
        "edge": edge,
        "long": long,
        "least": least,
        "name": Path(own.out).stem,
    }
    recipe = _small(values, task, train, epochs) if own.model == "small" else _base(values, task, train)
    return recipe, told


def _edge(size: tuple[int, int] | None, images: int) -> int:
    """Pixels of the shorter side: as many as `images`, all that a training goes through, leave time for."""
    for edge in EDGES:
        is_small = size is None or size[0] >= edge
        if is_small and images * (edge / 64) ** 2 <= WORK:
            return edge
    return EDGES[-1]


def _answers(train: Samples) -> tuple[int, str]:
    """How often an answer must occur, and what to say of the vocabulary."""
    _, counts = train.answer_counts()
    if not counts:
        raise UserError(f"{KEY}: the training split has no answers")
    least = proposal.least_occurrences(counts, MOST_ANSWERS)
    kept = sum(count >= least for count in counts.values())
    (best, number), total = counts.most_common(1)[0], sum(counts.values())
    line = f"{kept:,} of {len(counts):,}, those of {least} or more rows; {100 * number / total:.0f} % are {best!r:.60}"
    once = sum(count == 1 for count in counts.values())
    if 2 * once > len(counts) and 4 * once > total:
        line += f"; {once:,} occur once: what stands in one row alone can hardly be learned"
    return least, line


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
{table}
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


def _small(values: dict[str, Any], task: str, train: Samples, epochs: int) -> str:
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
    return text.format(**values) + _task_options(task, train)


def _base(values: dict[str, Any], task: str, train: Samples) -> str:
    batch = max(2, min(128, len(train) // 4))
    values |= {
        "vocabulary": "bert-base-uncased",
        "batch": batch,
        "texts": 1 if task == "retrieval" else 4,
        "warmup": max(1, min(500, len(train) // batch)),
    }
    text = COMMON + (ANSWERS if task == "vqa" else "") + BASE
    return text.format(**values) + (_task_options(task, train) if task == "retrieval" else "")


def _task_options(task: str, train: Samples) -> str:
    texts: Counter[str] = Counter(text.lower() for text in train.texts())
    negatives = max(1, min(20, len(texts) // 4))
    text = TASK_OPTIONS.get(task, "")
    return text.replace("NEGATIVES", str(negatives)).replace("HARDEST", str(max(1, min(5, negatives // 2))))


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
