"""A table of one's own as a data set: a row is a pair of a text with its image, or two (see docs/own-data.md).

The split of a row is that of its file, of a column, or a share of the images (data/shares.py). Samples come in the order of a
hash of their images' names, so that neither it nor the shares depend on the order of the rows.
"""

import glob
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pixelbert_plugin import registry
from pixelbert_plugin.data import cells, shares
from pixelbert_plugin.data.blocks import Arrays, Block, BlockWriter
from pixelbert_plugin.data.builders.base import Builder, BuilderConfig, below, image_path
from pixelbert_plugin.data.files import missing_files, require_files
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.tables import (
    DatasetsTable,
    Format,
    Place,
    Reading,
    Row,
    Table,
    load_datasets,
    named_rows,
    nothing_in,
    open_table,
)
from pixelbert_plugin.data.unpacked import leads_here, require_folder
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, FilePath, nearest, require
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)
TEXTS = ("question", "caption", "statement")
NUM_NAMED = 3  # images that are named in an error
FORMAT = 2  # of what is read from the same table; raise it when it is read differently


@dataclass(kw_only=True)
class ColumnsConfig:
    """The table's columns. None: the one of the same name, if there is one (capitals make no difference); "": none."""

    image: str | None = None  # path below `images`, URL or content (bytes, or data:…;base64,…) of the row's image
    left: str | None = None  # of two images (task nlvr2), the left one
    right: str | None = None  # the right one
    question: str | None = None  # the text about the image; one of question, caption and statement
    caption: str | None = None  # the same for captions; a cell may be a list of several
    statement: str | None = None  # the same for statements about two images
    answer: str | None = None  # the answer to the question
    answers: str | None = None  # several annotators' answers: a list, or text that answer_separator divides
    label: str | None = (
        None  # of two images, whether the statement is true (true, yes, t, 1); of one, the answer if no other is
    )
    id: str | None = None  # of the row, by which predictions are told. Without: image#1, image#2, …
    split: str | None = None  # the row's split, train, val or test; others by `use`
    groups: list[str] | None = None  # results are also told by the values of these. None: of a column `groups`


@dataclass(kw_only=True)
class SharesConfig:
    val: float = 0.1  # share of the images, 0…1, where neither files nor a column say the split
    test: float = 0.1  # likewise; train has the rest

    def check(self) -> None:
        require(self, "val", "test", low=0, high=1)
        if self.val + self.test > 1:
            raise ValueError("test: with val, more than all images")


@dataclass(kw_only=True)
class TableConfig(BuilderConfig):
    table: FilePath | None = None  # the file below env.data_dir, or a pattern (*.parquet); with format: datasets a name
    splits: dict[str, FilePath] = field(default_factory=dict)  # instead: the file of each split, {train: a.csv, val: b.csv}
    format: Format = "auto"  # auto: by the file's name. datasets: Hugging Face's, by name, or a folder below env.data_dir
    subset: str | None = None  # of a Hugging Face name, the configuration
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)  # what they are called in the table
    images: FilePath = ""  # folder of the images, below env.data_dir; or a pattern of their paths: photos/{image}.jpg
    shares: SharesConfig = field(default_factory=SharesConfig)  # of train, val and test, where the table does not say them
    answer_separator: str | None = None  # what divides the answers in a cell of `answers`, such as |. None: one answer a cell
    on_empty: Literal["error", "skip"] = "error"  # a row without image, text or answer: end the run, or leave it out
    encoding: str = "utf-8"  # of text files; a byte order mark is passed over
    delimiter: str | None = None  # of a CSV. None: a comma, semicolon, tab or |, whichever its header has most of
    quotes: bool = True  # whether quotation marks around a cell of a CSV are none of its text

    def check(self) -> None:
        if (self.table is None) == (not self.splits):
            both = (
                "and splits are both set; set one of them" if self.splits else "is not set, and splits neither; name the file"
            )
            raise ValueError(f"table: {both}")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError("delimiter: must be one character")


@dataclass(frozen=True)
class Roles:
    """A table's columns by what they are for."""

    images: tuple[str, ...]  # one, or left and right
    text: str
    text_role: str  # of TEXTS
    answer: str | None = None
    answers: str | None = None
    label: str | None = None  # of two images
    id: str | None = None
    split: str | None = None
    groups: tuple[str, ...] = ()

    def columns(self) -> list[str]:
        """All of them, each once."""
        found = [*self.images, self.text, self.answer, self.answers, self.label, self.id, self.split, *self.groups]
        return list(dict.fromkeys(name for name in found if name is not None))


@dataclass(frozen=True)
class Entry:
    """A row of a split, as it was read."""

    table: Table
    place: Place  # of the row; its cells may hold images, and are not kept
    images: tuple[cells.Image, ...]
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    answer: str | None
    id: int | str | None
    groups: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Of its images."""
        return tuple(image.name for image in self.images)


@registry.register_builder("table")
class TableBuilder(Builder):
    """A table of one's own: CSV, TSV, JSON, Parquet or a Hugging Face data set, with images in files, in cells or by URL."""

    Config = TableConfig
    config: TableConfig
    remedy = "paths begin in env.data_dir"

    def __init__(self, config: TableConfig, data_dir: Path, cache_dir: Path | None = None):
        self.remark: Callable[[str], None] = logger.warning  # is told what is left out
        self._remarks: set[str] = set()  # a row without an image is met in every split
        self._failed: dict[Path, str] = {}  # by file, the URL that it could not be fetched from, and why
        super().__init__(config, data_dir, cache_dir)

    def own_splits(self) -> list[str]:
        if self.config.splits:
            return list(self.config.splits)
        if self.config.format == "datasets" and len(self._datasets) > 1:
            return list(self._datasets)
        if self._has_column:
            return self._splits_of_column
        given = self.config.shares
        shared = {"train": 1 - given.val - given.test, "val": given.val, "test": given.test}
        return [name for name, share in shared.items() if share > 1e-9]

    def source_split(self, split: str) -> str:
        own, known = self.config.use.get(split, split), self.own_splits()
        if own not in known:
            remedy = f"; the one that serves as {split} is named by {self.key}.use.{split}"
            raise ConfigError(f"{self.key}.use.{split}", f"{own!r}: no such split{nearest(own, known)}{remedy}")
        return own

    def has_split(self, split: str) -> bool:
        return split in self.config.use or split in self.own_splits()

    def files(self, split: str) -> list[tuple[str, Path]]:
        return self._files(self.source_split(split))

    def samples(self, split: str) -> Samples:
        own = self.source_split(split)
        left_out: list[Path] = []
        what = f"{self.key}, split {own}"
        found = self.cached_samples(self._options(own), self._files(own), lambda: self._read(own, left_out), what, left_out)
        missing = missing_files(found.image_paths())
        if any(self._is_unpacked(path) and path not in self._failed for path in missing):
            for _ in self._read(own, []):  # what was unpacked was deleted since, or could not be fetched then
                pass
            missing = missing_files(found.image_paths())
        if missing and self.config.on_bad_image == "error":
            raise UserError(self.missing(own, missing, found.num_images))
        return found

    # files and tables

    def _files(self, own: str) -> list[tuple[str, Path]]:
        """The files that the split is read from, each with the key that names it."""
        if self.config.format == "datasets":
            return []
        key, given = f"{self.key}.table", self.config.table
        if self.config.splits:
            key, given = f"{self.key}.splits.{own}", self.config.splits[own]
        path = self.data_dir / str(given)
        if path.exists() or not glob.has_magic(str(given)):
            return [(key, path)]
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise ConfigError(key, f"{given!r}: no file has such a name below {str(self.data_dir)!r}")
        return [(key, Path(each)) for each in found]

    def tables(self, own: str) -> list[Table]:
        """The tables that the split is read from."""
        if self.config.format == "datasets":
            name = own if own in self._datasets else next(iter(self._datasets))
            return [DatasetsTable(f"{self.config.table}, split {name}", f"{self.key}.table", self._datasets[name])]
        files = self._files(own)
        require_files(files, self.remedy)
        config = self.config
        reading = Reading(self.key, config.encoding, config.delimiter, config.quotes)
        return [open_table(path, config.format, key, reading) for key, path in files]

    @cached_property
    def _datasets(self) -> dict[str, Any]:
        """The splits of a Hugging Face data set."""
        key, source = f"{self.key}.table", self.config.table
        if source is None:
            raise ConfigError(f"{self.key}.splits", "is for files; name a data set of Hugging Face's by table")
        folder = self.data_dir / source
        return load_datasets(str(folder) if folder.exists() else source, self.config.subset, key)

    def _options(self, own: str) -> Any:
        """What the samples depend on besides the files."""
        dealt_with = ("use", "counts", "on_bad_image", "only_known_answers")
        given = {item.name: getattr(self.config, item.name) for item in fields(self.config) if item.name not in dealt_with}
        given |= {"columns": asdict(self.config.columns), "shares": asdict(self.config.shares)}
        found = {} if self.config.format != "datasets" else {name: data._fingerprint for name, data in self._datasets.items()}
        return [FORMAT, own, given, found, str(self._unpacked_folder)]

    @cached_property
    def _unpacked_folder(self) -> Path | None:
        return None if self.cache_dir is None else require_folder(self.cache_dir, self.key).folder

    # columns

    @cached_property
    def _has_column(self) -> bool:
        """Whether a column says the split."""
        wanted = self.config.columns.split
        if self.config.splits or wanted == "":
            return False
        return wanted is not None or self.tables("train")[0].column("split") is not None

    @cached_property
    def _splits_of_column(self) -> list[str]:
        """What the column has, by first use."""

        def make() -> Arrays:
            found: dict[str, None] = {}
            for table in self.tables("train"):
                column = self._roles(table).split
                if column is not None:
                    for row in table.rows([column]):
                        found[self._cell(table, row, column, cells.text)] = None
            writer = BlockWriter()
            writer.extend([name.encode() for name in found if name])
            return writer.block().arrays("splits")

        return list(Block.of(self.cached(["splits", *self._options("")], self._files(""), make), "splits"))

    def _roles(self, table: Table) -> Roles:
        """The table's columns by role. Raises ConfigError where one is missing, or it is open which is meant."""
        key, given = f"{self.key}.columns", self.config.columns
        found: dict[str, str] = {}
        for item in fields(given):
            name = getattr(given, item.name)
            if item.name == "groups" or name == "":
                continue
            column = table.column(item.name if name is None else name)
            if column is None and name is not None:
                raise ConfigError(f"{key}.{item.name}", f"{name!r}: {table.name} has no such column{table.known(name)}")
            if column is not None:
                found[item.name] = column
        named = {name for name in found if getattr(given, name) is not None}
        return Roles(
            images=self._image_columns(table, found, named),
            text=found[(role := self._text_role(table, found, named))],
            text_role=role,
            **self._label_columns(found),
            id=found.get("id"),
            split=found.get("split") if not self.config.splits else None,
            groups=self._group_columns(table),
        )

    def _image_columns(self, table: Table, found: dict[str, str], named: set[str]) -> tuple[str, ...]:
        one, two = "image" in found, [name for name in ("left", "right") if name in found]
        if one and len(two) == 2 and {"image", "left", "right"} & named:  # those that the configuration names are meant
            one, two = "image" in named, two if {"left", "right"} & named else []
        if one and len(two) == 2:
            raise ConfigError(
                f"{self.key}.columns", f'{table.name} has image, left and right; set those that are not meant to ""'
            )
        if one:
            return (found["image"],)
        if len(two) == 2:
            return found["left"], found["right"]
        key = f"{self.key}.columns.{'image' if not two else 'right' if two == ['left'] else 'left'}"
        raise ConfigError(key, f"{table.name} has no such column; name the one that has the images{table.known('image')}")

    def _text_role(self, table: Table, found: dict[str, str], named: set[str]) -> str:
        roles = [role for role in TEXTS if role in found]
        roles = [role for role in roles if role in named] or roles
        if len(roles) > 1:
            raise ConfigError(
                f"{self.key}.columns", f'{table.name} has {" and ".join(roles)}; set those that are not meant to ""'
            )
        if not roles:
            raise ConfigError(
                f"{self.key}.columns.question",
                f"{table.name} has no such column, nor caption or statement; name the one that has the texts"
                f"{table.known('question')}",
            )
        return roles[0]

    def _label_columns(self, found: dict[str, str]) -> dict[str, str | None]:
        is_pair = "image" not in found or (self.config.columns.left is not None and self.config.columns.image is None)
        answer, answers, label = (found.get(name) for name in ("answer", "answers", "label"))
        if is_pair:
            return {"label": label or answer, "answer": None, "answers": None}
        if answer is None and answers is None:
            answer = label
        return {"answer": answer, "answers": answers, "label": None}

    def _group_columns(self, table: Table) -> tuple[str, ...]:
        wanted = self.config.columns.groups
        if wanted is None:
            column = table.column("groups")
            return () if column is None else (column,)
        columns = []
        for index, name in enumerate(wanted):
            column = table.column(name)
            if column is None:
                key = f"{self.key}.columns.groups[{index}]"
                raise ConfigError(key, f"{name!r}: {table.name} has no such column{table.known(name)}")
            columns.append(column)
        return tuple(columns)

    # rows

    def _cell(self, table: Table, row: Row, column: str, read: Any, *arguments: Any) -> Any:
        """What a cell means. Raises UserError with its row."""
        try:
            return read(row.cells[column], *arguments)
        except ValueError as error:
            raise UserError(f"{table.name}: {row.where}: column {column!r} {error}") from error

    def _images(self, table: Table, row: Row, roles: Roles) -> tuple[cells.Image, ...] | None:
        """The row's images; None where a cell of them is empty. Raises UserError for one that leads out of the folder."""
        found = []
        for column in roles.images:
            image = self._cell(table, row, column, cells.image)
            if image is None:
                return None
            is_own = isinstance(table, DatasetsTable)  # `datasets` itself says where the files of a folder are
            if image.path is not None and not is_own:
                self.image_name(image.path, Path(table.name), row.place, "row")
            if image.url is not None and leads_here(image.url) and not (is_own or self.config.outside_images):
                raise UserError(
                    f"{table.name}: {row.where}: image {image.url!r:.200} leads to files of this machine; correct it, or "
                    f"allow it with {self.key}.outside_images=true"
                )
            found.append(image)
        return tuple(found)

    @cached_property
    def _dealt(self) -> dict[str, str]:
        """The split of each image, by share."""
        given = self.config.shares

        def rows() -> Iterator[tuple[str, ...]]:
            for table in self.tables("train"):
                roles = self._roles(table)
                for row in table.rows(list(roles.images)):
                    images = self._images(table, row, roles)
                    if images is not None:
                        yield tuple(image.name for image in images)

        return shares.dealt(rows(), {"val": given.val, "test": given.test})

    @property
    def has_splits(self) -> bool:
        """Whether files, or a data set of Hugging Face's itself, say the split: no column does, and no share."""
        return bool(self.config.splits) or (self.config.format == "datasets" and len(self._datasets) > 1)

    @property
    def _is_dealt(self) -> bool:
        return not self.has_splits and not self._has_column

    def _entries(self, own: str, skipped: list[Entry] | None = None) -> Iterator[Entry]:
        """The rows of a split, as the table has them. Those that lack something are an error, or left out.

        With `skipped`, which gets those without a text, images in cells are unpacked.
        """
        lacking: dict[tuple[str, str], list[Place]] = defaultdict(list)  # rows by table and by what they lack
        rows_of_id: dict[int | str, str] = {}
        for table in self.tables(own):
            roles = self._roles(table)
            has_answers, unanswered = False, []
            for row in table.rows(roles.columns()):
                if self._has_column and roles.split is not None:
                    value = self._cell(table, row, roles.split, cells.text)
                    if not value:
                        lacking[table.name, roles.split].append(row.place)
                    if value != own:
                        continue
                images = self._images(table, row, roles)
                if images is None:
                    lacking[table.name, roles.images[0]].append(row.place)
                    continue
                if self._is_dealt and self._dealt[images[0].name] != own:
                    continue
                images = tuple(self._unpacked(image, writes=skipped is not None) for image in images)
                entry = self._entry(table, row, roles, images)
                if entry.id is not None:
                    where = f"{table.name}, {row.where}"
                    if (first := rows_of_id.setdefault(entry.id, where)) != where:
                        raise UserError(
                            f"{table.name}: id {entry.id!r:.80} is duplicated, in {row.where} and before in {first}; give "
                            f'every row its own, or do without: {self.key}.columns.id=""'
                        )
                if not entry.texts:
                    lacking[table.name, roles.text].append(row.place)
                    if skipped is not None:
                        skipped.append(entry)
                    continue
                has_answers |= bool(entry.answers)
                if not entry.answers:
                    unanswered.append(entry)
                    continue
                yield entry
            if has_answers and unanswered:  # a split without any is a test whose answers are not told
                column = roles.label or roles.answer or roles.answers or ""
                lacking[table.name, column] += [entry.place for entry in unanswered]
            else:
                yield from unanswered
        for (name, column), places in lacking.items():
            if self.config.on_empty == "error":
                remedy = f"fill it in, or leave such rows out with {self.key}.on_empty=skip"
                raise UserError(f"{nothing_in(name, places, column)}; {remedy}")
            self._tell(f"{nothing_in(name, places, column)}, and {'is' if len(places) == 1 else 'are'} left out")

    def _tell(self, remark: str) -> None:
        if remark not in self._remarks:
            self._remarks.add(remark)
            self.remark(remark)

    def _entry(self, table: Table, row: Row, roles: Roles, images: tuple[cells.Image, ...]) -> Entry:
        def cell(column: str | None, read: Any, *arguments: Any) -> Any:
            return None if column is None else self._cell(table, row, column, read, *arguments)

        if roles.text_role == "caption":
            texts = cell(roles.text, cells.texts)
        else:
            written = cell(roles.text, cells.text)
            texts = [written] if written else []
        answers = cell(roles.answers, cells.answers, self.config.answer_separator) or []
        main = cell(roles.label, cells.label) or cell(roles.answer, cells.text) or ""
        answer: str | None = main or None
        if not answers and answer is not None:
            answers = [answer]
        if answers and answer is None:
            answer = Counter(answers).most_common(1)[0][0]  # the first of equals
        groups: dict[str, str] = {}
        for column in roles.groups:
            groups |= self._cell(table, row, column, cells.group, column)
        return Entry(table, row.place, images, tuple(texts), tuple(answers), answer, cell(roles.id, cells.sample_id), groups)

    def _read(self, own: str, left_out: list[Path]) -> Iterator[Sample]:
        """The samples of a split, in their order; images in cells are unpacked, URLs are fetched."""
        skipped: list[Entry] = []
        entries = list(self._entries(own, skipped))
        entries.sort(key=_place)
        self._fetch(entries)
        counts: Counter[tuple[str, ...]] = Counter()  # of rows without an id, by their images
        used: set[Path] = set()
        for entry in entries:
            files = tuple(self._file(image) for image in entry.images)
            used.update(files)
            for number, text in enumerate(entry.texts, 1):
                counts[entry.names] += 1
                sample_id: int | str = f"{'+'.join(entry.names)}#{counts[entry.names]}"
                if entry.id is not None:
                    sample_id = entry.id if len(entry.texts) == 1 else f"{entry.id}#{number}"
                yield Sample(
                    sample_id=sample_id,
                    image_ids=entry.names,
                    images=files,
                    text=text,
                    answers=entry.answers,
                    answer=entry.answer,
                    groups=entry.groups,
                )
        for entry in skipped:
            left_out += [file for file in map(self._file, entry.images) if file not in used]

    # images

    def _unpacked(self, image: cells.Image, writes: bool) -> cells.Image:
        """The image without its content, which is written to its file unless it is there, or nothing is to be written."""
        if image.content is None:
            return image
        folder = require_folder(self.cache_dir, self.key)
        path = folder.write(image.content) if writes else folder.place(image.name)
        return cells.Image(image.name, path=str(path))

    def _is_unpacked(self, path: Path) -> bool:
        """Whether it is a file of an image in a cell, or of one that a URL leads to."""
        return self._unpacked_folder is not None and self._unpacked_folder in path.parents

    def _file(self, image: cells.Image) -> Path:
        if image.url is not None:
            return require_folder(self.cache_dir, self.key).of_url(image.url)
        name = str(image.path)
        if self._is_unpacked(Path(name)):
            return Path(name)
        pattern = self.config.images
        if "{" in pattern:
            is_number = cells.NUMBER.fullmatch(name) and re.search(r"\{image:[^}]*d\}", pattern)
            name = image_path(pattern, f"{self.key}.images", image=int(name) if is_number else name)
            return self.data_dir / name
        return self.data_dir / below(pattern, name)

    def _fetch(self, entries: list[Entry]) -> None:
        """Get what URLs lead to. Raises UserError with the rows where it fails, unless such images are skipped."""
        urls = [image.url for entry in entries for image in entry.images if image.url is not None]
        if not urls:
            return
        folder = require_folder(self.cache_dir, self.key)
        failed = folder.fetch(urls)
        if not failed:
            return
        self._failed |= {folder.of_url(url): f"{url:.200} ({reason})" for url, reason in failed.items()}
        places = sorted({entry.place for entry in entries if any(image.url in failed for image in entry.images)})
        url, reason = next(iter(failed.items()))
        told = f"{entries[0].table.name}: {named_rows(places)}: {len(failed):,} of {len(set(urls)):,} images cannot be fetched"
        told += f": {url:.200} ({reason})"
        if self.config.on_bad_image == "error":
            remedy = f"the same command fetches what is missing; {self.key}.on_bad_image=skip leaves such images out"
            raise UserError(f"{told}; {remedy}")
        self._tell(told)

    def missing(self, own: str, missing: list[Path], total: int) -> str:
        """What to say where image files of `total` are missing, and what to do."""
        remedy = f"{self.key}.images={self.config.images!r} is the folder that they are looked for in, below env.data_dir"
        if all(path in self._failed for path in missing):
            remedy = "the same command fetches what is missing"
        if len(missing) < total:
            remedy += f"; {self.key}.on_bad_image=skip leaves such images out"
        return f"{self.told_missing(own, missing, total)}; {remedy}"

    def told_missing(self, own: str, missing: list[Path], total: int) -> str:
        """What to say where image files of `total` are missing: which rows of the split have them."""
        where, first = self.rows_of(own, missing)
        named = ", ".join(self._failed.get(path, str(path)) for path in first[:NUM_NAMED])
        are_fetched = all(path in self._failed for path in missing)
        is_all = len(missing) == total > 1
        many = "none of the images" if is_all else f"{len(missing):,} of {total:,} images"
        be_there = ("can be", "cannot be") if are_fetched else ("is", "are not")
        told = f"{many} {be_there[0 if is_all else 1]} {'fetched' if are_fetched else 'there'}"
        return f"{where}: {told}: {named}{', …' if len(missing) > NUM_NAMED else ''}"

    def rows_of(self, own: str, files: list[Path]) -> tuple[str, list[Path]]:
        """Which rows of a split have some of its image files, "t.csv: rows 3 and 5", and the files in the order of the rows."""
        wanted, places, table = set(files), [], ""
        first: dict[Path, None] = {}
        for entry in self._entries(own):
            found = [file for file in map(self._file, entry.images) if file in wanted]
            if found:
                places.append(entry.place)
                table = table or entry.table.name
                first.update(dict.fromkeys(found))
        return (f"{table}: {named_rows(places)}" if places else self.key), list(first or files)


def _place(entry: Entry) -> tuple[Any, ...]:
    """Where an entry stands among the others, whatever the order of the rows."""
    identity = "" if entry.id is None else str(entry.id)
    kinds = sorted(entry.groups.items())
    return shares.order("\n".join(entry.names)), entry.names, entry.texts, identity, entry.answers, entry.answer or "", kinds
