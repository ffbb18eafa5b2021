"""Tables of anybody's: CSV, TSV, JSON Lines, a JSON list, Parquet and Hugging Face's `datasets`, as rows of named cells.

A cell is what the format holds: text in CSV and TSV; text, numbers, lists and mappings in JSON, Parquet and `datasets`, bytes
in the last two. Rows are counted from 1, a header being none. Nothing is kept: rows come one by one, as often as they are asked
for.
"""

import csv
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pixelbert_plugin.data.files import BrokenJson, JsonText, listed
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import nearest
from pixelbert_plugin.system.foreign import what_else

Format = Literal["auto", "csv", "tsv", "jsonl", "json", "parquet", "datasets"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
DELIMITERS = ",;\t|"  # of which a CSV has the one that its header has most of
MAX_CELL = 1 << 24  # characters of a CSV's cell
NUM_NAMED = 5  # rows that are named in an error
BATCH, IMAGE_BATCH = 1024, 16  # rows of a Parquet file that are held at once, and where there may be images in them
EXTRA = "pip install 'pixelbert_plugin[table]'"


class Place(NamedTuple):
    """Where a row stands in its table."""

    number: int  # from 1; a header is none
    line: int | None = None  # of a text file, where the row begins: what an editor shows

    def __str__(self) -> str:
        """ "3 (line 4)"."""
        return str(self.number) + (f" (line {self.line})" if self.line is not None else "")


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    number: int  # from 1; a header is none
    cells: dict[str, Any]  # by column, as it is named in the table
    line: int | None = None  # of a text file, where the row begins

    @property
    def place(self) -> Place:
        """Without the cells, which may hold images."""
        return Place(self.number, self.line)

    @property
    def where(self) -> str:
        """ "row 3 (line 4)"."""
        return f"row {self.place}"


@dataclass(frozen=True)
class Reading:
    """How text files are read."""

    key: str  # where the options stand, for errors: dataset_config.table
    encoding: str = "utf-8"
    delimiter: str | None = None  # of a CSV. None: the one of DELIMITERS that its header has most of; a TSV's is the tab
    quotes: bool = True  # whether quotation marks around a cell of a CSV or TSV are none of it


class Table:
    """A table: its columns, and its rows as often as they are asked for."""

    def __init__(self, name: str, key: str):
        """`name`: what it is called in errors; `key`: the config key that names it."""
        self.name, self.key = name, key

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """As the table names them, in its order. Raises UserError where it cannot be read."""

    @abstractmethod
    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """The cells of some columns, or of all. Raises UserError where the table cannot be read on, with the row."""

    def column(self, name: str) -> str | None:
        """The column of this name; where there is none, the one that differs in capitals and blanks around it alone.

        Raises UserError where there are several.
        """
        same = [found for found in self.columns if found == name] or [
            found for found in self.columns if plain(found) == plain(name)
        ]
        if len(same) > 1:
            raise UserError(f"{self.name}: has several columns {name!r} ({', '.join(map(repr, same))}); rename all but one")
        return same[0] if same else None

    def known(self, name: str) -> str:
        """ "; did you mean X? (known: …)"."""
        return nearest(name, [found for found in self.columns if found])


def plain(name: str) -> str:
    """A column's name without what spreadsheets and exports change."""
    return name.strip().strip("\ufeff").casefold()


def named_rows(places: Sequence[Place]) -> str:
    """ "row 3 (line 4)", "rows 3 and 5 (lines 4 and 6)", "rows 3, 5, 9, 12, 17 and 40 more (lines 4, 6, 10, 13, 18, …)"."""
    if len(places) == 1:
        return f"row {places[0]}"
    shown, rest = places[:NUM_NAMED], len(places) - NUM_NAMED
    lines = [str(place.line) for place in shown if place.line is not None]
    where = f" (lines {', '.join(lines)}, …)" if rest > 0 else f" (lines {listed(lines)})"
    return f"rows {listed([*(str(place.number) for place in shown), *([f'{rest:,} more'] if rest > 0 else [])])}" + (
        where if lines else ""
    )


def nothing_in(table: str, places: Sequence[Place], column: str) -> str:
    """ "t.csv: row 3 (line 4) has nothing in column 'image'"."""
    return f"{table}: {named_rows(places)} {'has' if len(places) == 1 else 'have'} nothing in column {column!r}"


def open_table(path: Path, kind: Format, key: str, reading: Reading) -> Table:
    """A file as a table; nothing of it is read yet. Raises UserError for a file of no known kind."""
    if kind == "auto":
        found = SUFFIXES.get(path.suffix.lower())
        if found is None:
            known = ", ".join(SUFFIXES)
            told = what_else(path)
            raise UserError(
                f"{key}={str(path)!r}: {told}"
                if told
                else f"{key}={str(path)!r}: its name does not say what it is ({known}); set {reading.key}.format"
            )
        kind = found
    if kind == "parquet":
        return ParquetTable(path, key)
    if kind in ("csv", "tsv"):
        return DelimitedTable(path, key, reading, "\t" if kind == "tsv" and reading.delimiter is None else reading.delimiter)
    return JsonTable(path, key, reading, is_lines=kind == "jsonl")


class DelimitedTable(Table):
    """A CSV or TSV file with a header."""

    def __init__(self, path: Path, key: str, reading: Reading, delimiter: str | None):
        super().__init__(str(path), key)
        self.path, self.reading, self._delimiter = path, reading, delimiter

    @property
    def columns(self) -> list[str]:
        return self._header[0]

    @cached_property
    def _header(self) -> tuple[list[str], str]:
        """The columns, and what is between them."""
        with self._opened() as file:
            delimiter = self._delimiter
            if delimiter is None:
                first = next((line for line in file if line.strip()), "")
                delimiter = max(DELIMITERS, key=first.count)  # the first of equals: a comma, also where there is one column
                file.seek(0)
            try:
                found: list[str] = next((cells for cells in self._reader(file, delimiter) if any(map(str.strip, cells))), [])
            except csv.Error as error:
                raise UserError(f"{self.key}={self.name!r}: its first line cannot be read as columns ({error})") from error
        if not found:
            raise UserError(f"{self.key}={self.name!r}: is empty; its first line must name the columns")
        return found, delimiter

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        names, delimiter = self._header
        wanted = names if columns is None else columns
        for name in wanted:
            if names.count(name) > 1:
                raise UserError(f"{self.name}: has several columns {name!r}; rename all but one")
        places = {name: names.index(name) for name in wanted}
        number, last, is_header = 0, 0, True
        with self._opened() as file:
            reader = self._reader(file, delimiter)
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    raise UserError(self._broken(number + 1, last + 1, str(error))) from error
                line, last = last + 1, reader.line_num
                if not any(map(str.strip, cells)):  # an empty line, or one of commas as a spreadsheet ends with, is no row
                    continue
                if is_header:
                    is_header = False
                    continue
                number += 1
                if len(cells) != len(names):
                    many = f"has {len(cells)} cells, the header {len(names)}"
                    raise UserError(
                        f"{self.name}: row {Place(number, line)} {many}; put cells that hold {delimiter!r} in quotation marks"
                    )
                yield Row(number, {name: cells[place] for name, place in places.items()}, line)

    def _reader(self, file: Any, delimiter: str) -> Any:
        csv.field_size_limit(MAX_CELL)
        if self.reading.quotes:
            return csv.reader(file, delimiter=delimiter, strict=True)
        return csv.reader(file, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE)

    def _broken(self, number: int, line: int, reason: str) -> str:
        if "unexpected end of data" in reason:
            reason = "a quotation mark opens here, and none closes it"
        elif "field larger" in reason:
            reason = f"a cell of more than {MAX_CELL:,} characters: is a quotation mark missing?"
        remedy = "" if not self.reading.quotes else f"; correct it, or set {self.reading.key}.quotes=false where they are text"
        return f"{self.name}: row {Place(number, line)} cannot be read ({reason}){remedy}"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with opened_text(self.path, self.key, self.reading) as file:
            yield file


class JsonTable(Table):
    """A file of JSON objects, one a line, or one list of them. The columns are those of all rows."""

    def __init__(self, path: Path, key: str, reading: Reading, is_lines: bool):
        super().__init__(str(path), key)
        self.path, self.reading, self._is_lines = path, reading, is_lines

    @cached_property
    def columns(self) -> list[str]:
        found: dict[str, None] = {}
        for row in self.rows():
            found.update(dict.fromkeys(row.cells))
        if not found:
            raise UserError(f"{self.key}={self.name!r}: holds no rows")
        return list(found)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        for number, line, value in self._lines() if self._is_lines else self._elements():
            row = Row(number, {}, line)
            if not isinstance(value, dict):
                raise UserError(f"{self.name}: {row.where} is {value!r:.80}, no object ({{…}})")
            yield Row(number, value if columns is None else {name: value.get(name) for name in columns}, line)

    def _lines(self) -> Iterator[tuple[int, int | None, Any]]:
        number = 0
        with opened_text(self.path, self.key, self.reading) as file:
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                number += 1
                try:
                    value = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{self.name}: row {Place(number, line)} is no JSON ({error})") from error
                yield number, line, value

    def _elements(self) -> Iterator[tuple[int, int | None, Any]]:
        with opened_text(self.path, self.key, self.reading) as file:
            text, number = JsonText(file), 0
            try:
                if text.peek() != "[":
                    remedy = f"; for one object a line set {self.reading.key}.format=jsonl" if text.peek() == "{" else ""
                    raise UserError(f"{self.key}={self.name!r}: must hold a list of objects, [{{…}}, …]{remedy}")
                for number, value in enumerate(text.elements(), 1):
                    yield number, None, value
                text.end()
            except BrokenJson as error:
                where = f"line {error.lineno}, column {error.colno}"
                raise UserError(f"{self.name}: row {number + 1} is no JSON ({error.msg}; {where})") from error
            except (ValueError, RecursionError) as error:
                raise UserError(f"{self.name}: row {number + 1} is no JSON ({error!s:.200})") from error


class ParquetTable(Table):
    """A Parquet file; a column of `datasets`' Image is a mapping of bytes and path."""

    def __init__(self, path: Path, key: str):
        super().__init__(str(path), key)
        self.path = path

    @cached_property
    def columns(self) -> list[str]:
        with self._opened() as file:
            return list(file.schema_arrow.names)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        wanted = self.columns if columns is None else list(columns)
        number = 0
        with self._opened() as file:
            types = [file.schema_arrow.field(name).type for name in wanted]
            size = IMAGE_BATCH if any(map(_may_hold_images, types)) else BATCH
            for group in range(file.num_row_groups):  # over all of them it would keep the ones before in memory
                for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=wanted):
                    held = {name: batch.column(name).to_pylist() for name in wanted}
                    for place in range(len(batch)):
                        number += 1
                        yield Row(number, {name: cells[place] for name, cells in held.items()})

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UserError(f"{self.key}={self.name!r}: Parquet needs pyarrow; {EXTRA}") from error
        if not self.path.is_file():  # also a pipe, which would be waited for
            raise UserError(f"{self.key}={self.name!r}: {'is no file' if self.path.exists() else 'no such file'}")
        try:
            with parquet.ParquetFile(self.path) as file:
                yield file
        except (pyarrow.ArrowException, OSError, ValueError) as error:  # ArrowInvalid and UnicodeDecodeError are ValueErrors
            told = what_else(self.path) or f"is no readable Parquet file ({str(error).splitlines()[0]:.200})"
            raise UserError(f"{self.key}={self.name!r}: {told}") from error


def _may_hold_images(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind) or types.is_binary(kind) or types.is_large_binary(kind))


@dataclass
class DatasetsTable(Table):
    """One split of a data set of Hugging Face's `datasets`, whose images are left as they are stored."""

    name: str
    key: str
    data: Any = field(repr=False)  # a datasets.Dataset

    @property
    def columns(self) -> list[str]:
        return list(self.data.column_names)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        wanted = self.columns if columns is None else list(columns)
        for number, cells in enumerate(undecoded(self.data.select_columns(wanted)), 1):
            yield Row(number, dict(cells))


def undecoded(data: Any) -> Any:
    """A data set that gives an image as it is stored, {bytes, path}, no Pillow image."""
    from datasets import Image

    for name, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
    return data


def load_datasets(source: str, subset: str | None, key: str) -> dict[str, Any]:
    """The splits of a data set of Hugging Face's, by its name on the hub, or of a folder: one that `save_to_disk` wrote, or one
    of files that `datasets` knows. Raises UserError where it cannot be had."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{key}={source!r}: a data set of Hugging Face's needs the package datasets; {EXTRA}") from error
    folder = Path(source)
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(source)
        else:
            found = datasets.load_dataset(source, subset)
    except Exception as error:  # of the hub, its files, or what reads them
        raise UserError(f"{key}={source!r}: cannot be loaded by datasets ({type(error).__name__}: {error})"[:900]) from error
    return dict(found) if isinstance(found, dict) else {"train": found}


@contextmanager
def opened_text(path: Path, key: str, reading: Reading) -> Iterator[Any]:
    """A text file. What goes wrong while it is read becomes one line."""
    if path.exists() and not path.is_file():
        raise UserError(f"{key}={str(path)!r}: is {'a folder' if path.is_dir() else 'a pipe or a device'}; name a file")
    encoding = "utf-8-sig" if reading.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else reading.encoding
    told = what_else(path) if encoding == "utf-8-sig" else ""
    if told:
        raise UserError(f"{key}={str(path)!r}: {told}")
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        others = f"set {reading.key}.encoding to what it is, such as cp1252 or latin-1, or save it as UTF-8"
        raise UserError(
            f"{key}={str(path)!r}: is no {reading.encoding} text ({error.reason} at byte {error.start:,}); {others}"
        ) from error
    except LookupError as error:
        raise UserError(
            f"{reading.key}.encoding: {reading.encoding!r}: no such encoding, as utf-8, cp1252 or latin-1"
        ) from error
    except OSError as error:
        raise UserError(f"{key}={str(path)!r}: {'no such file' if not path.exists() else error.strerror}") from error
