"""`pixelbert-data new table=my.csv images=photos out=my.yaml`: looks at a table, and writes a YAML that trains on it."""

import os
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from math import ceil
from pathlib import Path
from typing import Any, Literal

import yaml

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import EnvConfig
from pixelbert_plugin.data import proposal
from pixelbert_plugin.data.builders.table import ColumnsConfig, SharesConfig, TableBuilder, TableConfig
from pixelbert_plugin.data.connected import connected
from pixelbert_plugin.data.files import missing_files
from pixelbert_plugin.data.images import BadImageError, read_image, upright_size
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.survey import seen_in_training
from pixelbert_plugin.data.tables import Table
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.processors.answers import answer_key
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
NUM_NAMED = 3  # images that are named
DECODING, HEADERS = 15.0, 30.0  # seconds for which images are decoded, and then their headers read
SPLIT_REMEDY = "columns.split=NAME names a column of splits, 'splits={train: a.csv, val: b.csv}' a file for each"


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
    use: dict[str, str] = field(default_factory=dict)  # the table's own split for train, val or test: {test: eval}
    on_empty: Literal["skip", "error"] = "skip"  # a row without image, text, answer or split: leave it out, or end the command
    on_bad_image: Literal["auto", "skip", "error"] = (
        "auto"  # an image that is missing or unreadable. auto: skip, unless most are
    )
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
    split_by: str  # files, a column, or share
    samples: dict[str, Samples]  # by train, val and test


def new(own: NewConfig) -> str:
    """Write the configuration. Returns what was found, and the commands that go on. Raises UserError with the rows of what is
    wrong in the table."""
    out = Path(own.out)
    if out.exists() and not own.overwrite:
        raise ConfigError("out", f"{own.out!r} is there already; name another file, or give overwrite=true")
    if not out.parent.is_dir():
        raise ConfigError("out", f"{own.out!r}: there is no folder {str(out.parent)!r}")
    with _in_own_words():
        found = _look(own)
    text, told = _written(found, own)
    with writing(out, "out"):
        out.write_text(text, encoding="utf-8")
    lines = [f"{name:<12}{line}" for name, line in told]
    lines += [f"{kind:<12}{remark}" for kind, remark in _remarks(found.columns)]
    run = out.stem
    after = f"pixelbert-run config={own.out}\npixelbert-demo checkpoint=save/{run}"
    does = "trains on it, and measures nothing" if found.run_type == "train" else "trains and evaluates it"
    return "\n".join(lines) + f"\n\n{own.out} {does}; then a page asks what was trained:\n\n{after}"


@contextmanager
def _in_own_words() -> Iterator[None]:
    """Errors of the data set name its options as this command takes them: encoding, not dataset_config.table.encoding."""
    try:
        yield
    except UserError as error:
        told = str(error).replace(f"{KEY}.", "").replace("env.data_dir", "the folder that the command is run in")
        raise UserError(told) from error


def _remarks(columns: proposal.Columns) -> list[tuple[str, str]]:
    """What is told beside the proposal, each in one line: what a table holds may have line breaks, or marks of a terminal's."""
    both = [("WARNING", remark) for remark in columns.warnings] + [("note", remark) for remark in columns.remarks]
    return [(kind, "".join(each if each.isprintable() else " " for each in remark)) for kind, remark in both]


def _look(own: NewConfig) -> Found:
    """Read the whole table once."""
    if own.table is not None and not own.splits and own.format != "datasets" and Path(own.table).is_dir():
        raise ConfigError(
            "table",
            f"{own.table!r}: is a folder; name the file, a pattern such as {own.table.rstrip('/')}/*.parquet, or "
            "format=datasets for a folder that Hugging Face's datasets knows",
        )
    names = {item.name for item in fields(TableConfig)}
    names -= {"use", "on_empty", "on_bad_image"}  # which are of columns and rows that are not known yet
    given = {key: value for key, value in vars(own).items() if key in names and value != _default(key)}
    given |= {"columns": _set(asdict(own.columns)), "shares": asdict(own.shares), "outside_images": own.outside_images}
    first = _builder(given, Path())
    is_split = first.has_splits
    tables = first.tables(next(iter(own.splits), "train")) if is_split else first.tables("train")
    for table in tables:
        table.columns  # noqa: B018  # raises where it cannot be read
    known = {name: value for name, value in asdict(own.columns).items() if name != "groups"}
    task = None if own.task == "auto" else own.task
    images = os.path.normpath(own.images) if own.images and "{" not in own.images else own.images
    columns = proposal.find_columns(tables, known, images, Path(), task, is_split, own.use)
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
    if own.on_empty == "skip" and columns.on_empty == "skip":
        options["on_empty"] = "skip"
    if is_split:
        columns.use = proposal.splits_of(first.own_splits(), own.use)
        columns.remarks += proposal.unused(_rows_of_splits(first, columns.use), columns.use, "")
    split_by = "files" if own.splits else "the data set" if is_split else "share"
    if not is_split and columns.roles.get("split"):
        split_by = f"column {columns.roles['split']!r}"
    use = {split: name for split, name in columns.use.items() if split != name}
    if use:
        options["use"] = use
    builder = _builder({**options, "on_bad_image": "error" if own.on_bad_image == "error" else "skip"}, Path())
    builder.remark = lambda told: None  # the proposal tells what is left out
    samples = _samples(builder, columns)
    for split, part in samples.items():
        _look_for_images(builder, split, part, columns, options, own)
    _look_at_images(builder, samples, columns, options, own)
    _look_at_splits(samples, columns, split_by)
    return Found(columns, options, "_".join(samples), split_by, samples)


def _rows_of_splits(builder: TableBuilder, use: dict[str, str]) -> dict[str, int]:
    """The rows of each of a table's own splits that is not used; those of the others are not counted."""

    def count(table: Table) -> int:
        return sum(1 for _ in table.rows(table.columns[:1]))

    left = [name for name in builder.own_splits() if name not in use.values()]
    return {name: sum(map(count, builder.tables(name))) for name in left}


def _samples(builder: TableBuilder, columns: proposal.Columns) -> dict[str, Samples]:
    """Those of train, val and test that a run takes."""
    held = [split for split in ("train", "val", "test") if builder.has_split(split)]
    if "train" not in held:
        raise UserError(f"no training split is among {', '.join(builder.own_splits())}; use={{train: NAME}} names it")
    samples = {split: builder.samples(split) for split in held}
    samples = {split: part for split, part in samples.items() if len(part)}
    if "train" not in samples:
        raise UserError(f"no row is left for training{''.join(f'; {remark}' for remark in columns.remarks)}")
    if columns.task in ("vqa", "nlvr2"):
        _, answers = samples["train"].answer_counts()
        if not answers:
            role = "answer" if columns.task == "vqa" else "label"
            raise UserError(f"no row of train has its {role}; columns.{role}=NAME names the column")
        if "val" in samples and not samples["val"].answer_counts()[1]:
            columns.warnings.append("no row of val has an answer, so that it measures nothing, and is left out of run_type")
            del samples["val"]
    return samples


def _look_for_images(
    builder: TableBuilder, split: str, samples: Samples, columns: proposal.Columns, options: dict[str, Any], given: NewConfig
) -> None:
    """Missing images are told with their rows, and left out; most of them missing is an error."""
    missing = missing_files(samples.image_paths())
    if not missing:
        return
    own = builder.source_split(split)
    if len(missing) == samples.num_images or _are_too_many(missing, samples.num_images, given):
        raise UserError(builder.missing(own, missing, samples.num_images))
    told = builder.told_missing(own, missing, samples.num_images)
    columns.remarks.append(f"{told}; their rows are left out (on_bad_image: skip)")
    options["on_bad_image"] = "skip"


def _look_at_images(
    builder: TableBuilder, samples: dict[str, Samples], columns: proposal.Columns, options: dict[str, Any], given: NewConfig
) -> None:
    """Images that cannot be read are told with their rows, and left out; most of them so is an error. For some seconds they are
    decoded, then their headers are read; where that is not enough either, it is said what looks at all of them."""
    began = time.monotonic()
    looked = decoded = total = 0
    for split, part in samples.items():
        paths = part.image_paths()
        absent = set(missing_files(paths))
        bad: dict[Path, str] = {}
        there = [path for path in paths if path not in absent]
        total += len(there)
        for path in there:
            spent = time.monotonic() - began
            if spent > DECODING + HEADERS:
                break
            looked += 1
            decoded += spent <= DECODING
            try:
                read_image(path) if spent <= DECODING else upright_size(path)
            except BadImageError as error:
                bad[path] = str(error)
        if not bad:
            continue
        where, first = builder.rows_of(builder.source_split(split), list(bad))
        named = ", ".join(bad[path] for path in first[:NUM_NAMED]) + (", …" if len(bad) > NUM_NAMED else "")
        told = f"{where}: {len(bad):,} of {len(there):,} images cannot be read: {named}"
        if _are_too_many(bad, len(there), given):
            raise UserError(f"{told}; replace them, or leave their rows out with on_bad_image=skip")
        columns.remarks.append(f"{told}; their rows are left out (on_bad_image: skip)")
        options["on_bad_image"] = "skip"
    if decoded < total:
        only = f"{decoded:,} of {total:,} images were decoded" + (
            f", {looked - decoded:,} looked at" if looked > decoded else ""
        )
        columns.remarks.append(f"{only}; pixelbert-data check config={given.out} images=all decodes every one")


def _are_too_many(bad: Collection[Path], total: int, given: NewConfig) -> bool:
    """Whether images that are missing or bad end the command: most of them being so, something else is wrong."""
    return given.on_bad_image == "error" or (given.on_bad_image == "auto" and 2 * len(bad) > total)


def _look_at_splits(samples: dict[str, Samples], columns: proposal.Columns, split_by: str) -> None:
    """What makes that a split measures nothing, or what was learned."""
    trained = samples["train"].image_names()
    for split in ("val", "test"):
        for remark in seen_in_training(samples[split], trained) if split in samples else ():
            remedy = "; 'columns.split=\"\"' deals the images out anew" if split_by.startswith("column") else ""
            columns.warnings.append(f"{split}: {remark.detail}{remedy}")
    is_all_train = samples.keys() == {"train"}
    nothing = "there is no val and no test, so that nothing is measured: "
    if split_by == "share" and "left" in columns.roles:
        groups = connected(sample.image_ids for part in samples.values() for sample in part)
        largest = max(Counter(groups.values()).values())
        if 2 * largest > len(groups):
            columns.warnings.append(
                f"{nothing if is_all_train else ''}{largest:,} of {len(groups):,} images are connected by pairs that share "
                "one, and are all train's, for in val or test a pair would have an image that was learned; give these pairs "
                f"and images of their own: {SPLIT_REMEDY}"
            )
            return
    if is_all_train:
        columns.warnings.append(f"{nothing}{SPLIT_REMEDY}")


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
        "remarks": "".join(_comment(remark) for _, remark in _remarks(found.columns)),
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
