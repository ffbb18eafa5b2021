"""What `pixelbert-data new` looks at: columns, splits, images, what is left out and what a run would refuse."""

import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

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
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, FilePath

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

    def remarks(self) -> list[tuple[str, str]]:
        """What is told beside the proposal, each in one line: what a table holds may have line breaks, or marks of a
        terminal's."""
        columns = self.columns
        both = [("WARNING", remark) for remark in columns.warnings] + [("note", remark) for remark in columns.remarks]
        return [(kind, "".join(each if each.isprintable() else " " for each in remark)) for kind, remark in both]


def look(own: NewConfig) -> Found:
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
    there = {split: _look_for_images(builder, split, part, columns, options, own) for split, part in samples.items()}
    _look_at_images(builder, there, columns, options, own)
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
) -> list[Path]:
    """Missing images are told with their rows, and left out; most of them missing is an error. Returns the others."""
    paths = samples.image_paths()
    missing = missing_files(paths)
    if not missing:
        return paths
    own = builder.source_split(split)
    if len(missing) == samples.num_images or _are_too_many(missing, samples.num_images, given):
        raise UserError(builder.missing(own, missing, samples.num_images))
    told = builder.told_missing(own, missing, samples.num_images)
    columns.remarks.append(f"{told}; their rows are left out (on_bad_image: skip)")
    options["on_bad_image"] = "skip"
    absent = set(missing)
    return [path for path in paths if path not in absent]


def _look_at_images(
    builder: TableBuilder, images: dict[str, list[Path]], columns: proposal.Columns, options: dict[str, Any], given: NewConfig
) -> None:
    """Images that cannot be read are told with their rows, and left out; most of them so is an error. For some seconds they are
    decoded, then their headers are read; where that is not enough either, it is said what looks at all of them."""
    began = time.monotonic()
    looked = decoded = total = 0
    for split, there in images.items():
        bad: dict[Path, str] = {}
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
