"""What a table of anybody's is, as far as it can be seen: its task, its columns, its split, and the sizes that suit it.

Columns are known by the names that people give them and by what is in them: those of images are files in the folder, those of
ids are all different. What is proposed is said, and can be given instead.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin.data import cells
from pixelbert_plugin.data.files import missing_files
from pixelbert_plugin.data.images import BadImageError, upright_size
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.tables import Place, Row, Table, named_rows, nothing_in
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError

LOOKED_AT = 1000  # rows whose cells are looked at to know a column
HELD_BYTES = 1 << 26  # of images in these cells, at most
MEASURED = 200  # images whose sizes are read
MAX_KINDS = 20  # of a column whose values results are told by
SUFFIXES = (".jpg", ".png", ".jpeg", ".webp", ".JPG")  # that names of images may lack
NAMES = {  # by role, how its column is called, the likeliest first; without what is no letter or digit
    "left": "left leftimage imageleft image1 img1 imagea firstimage",
    "right": "right rightimage imageright image2 img2 imageb secondimage",
    "image": "image img imagepath imgpath imagefile imgfile imagename filename file path photo photos picture pic bild "
    "imageurl imgurl url imageid imgid jpg png",
    "question": "question questions query frage prompt instruction q",
    "statement": "statement hypothesis claim",
    "caption": "caption captions text description title sentence sentences alttext alt raw texts",
    "answers": "answers annotatoranswers",
    "answer": "answer antwort multiplechoiceanswer response output target a",
    "label": "label istrue truth correct match",
    "id": "id questionid qid uid sampleid rowid identifier captionid sentid",
    "split": "split subset partition set phase",
}
KINDS = "answertype questiontype category type kind topic"  # of rows, which results are told by
FILLERS = "column col field text string str file filename name path value".split()  # of a column's name, that say no role
SPLITS = {  # what people call them
    "train": "train training tr trn",
    "val": "val valid validation dev development",
    "test": "test testing tst",
}
EITHER = "eval evaluation"  # val, or test where something else is val
MAX_NAMED = 5  # values that are named


@dataclass
class Columns:
    """The columns of a table by role, and what else was seen on the way."""

    task: str
    roles: dict[str, str]  # by role the column, "" for none where one of that name is something else
    groups: list[str] = field(default_factory=list)
    images: str = ""  # the folder or pattern of images
    answer_separator: str | None = None
    use: dict[str, str] = field(default_factory=dict)  # the table's own split for train, val or test
    on_empty: str = "error"
    remarks: list[str] = field(default_factory=list)  # what is left out, and why
    warnings: list[str] = field(default_factory=list)  # what makes the results worth little, and what to do


def find_columns(
    tables: Sequence[Table],
    given: dict[str, str | None],
    images: str,
    data_dir: Path,
    task: str | None,
    has_splits: bool,
    use: dict[str, str] | None = None,
) -> Columns:
    """The columns of tables alike. `given`: those that are known, by role; `images`: the folder, "" where it is to be found;
    `has_splits`: whether files say the split; `use`: the table's own splits that are known, by train, val and test. Raises
    UserError where a column cannot be told."""
    table = tables[0]
    rows = _first_rows(table)
    roles = {role: _named(table, role, name) for role, name in given.items() if name is not None}
    taken = set(roles.values())

    def known(role: str) -> list[str]:
        """The columns that are called as this role's are, the likeliest first."""
        if role in roles:
            return [roles[role]] if roles[role] else []
        return [name for name in _called(role, table.columns) if name not in taken]

    def take(role: str) -> None:
        found = known(role)
        if found:
            roles[role] = found[0]
            taken.add(found[0])

    found = Columns("", roles)
    if known("left") and known("right") and not given.get("image"):
        take("left")
        take("right")
        columns = [roles["left"], roles["right"]]
    else:
        columns = [_image_column(table, known("image"), rows, images, data_dir, taken)]
        roles["image"] = columns[0]
        taken.add(columns[0])
    is_pair = len(columns) == 2
    found.images = _folder(table, columns, rows, images, data_dir)
    for role in ("split", "id", "question", "answers", "answer") if not is_pair else ("split", "id", "statement"):
        take(role)
    if is_pair:
        take("label")
        for role in ("caption", "question"):
            if "statement" not in roles:
                take(role)
    elif "question" not in roles or not {"answer", "answers"} & roles.keys():
        if "question" in roles and known("label"):
            roles["answer"] = known("label")[0]
            taken.add(roles["answer"])
        else:
            take("caption")
    found.task = task or _task(table, roles, is_pair)
    for role, others in (("question", ("caption", "statement")), ("caption", ("question", "statement"))):
        is_text = role in roles and (role == "question") == (found.task == "vqa")
        if is_text:
            for other in others:
                roles.pop(other, None)
    if found.task != "vqa":
        for role in ("answer", "answers"):
            roles.pop(role, None)
    if has_splits:
        roles.pop("split", None)
    _check_split(tables, found, use or {})
    _check_ids(tables, found)
    found.groups = [
        name
        for name in table.columns
        if name not in roles.values() and _letters(name) in KINDS.split() and found.task == "vqa" and _has_few(name, rows)
    ]
    if "answers" in roles:
        found.answer_separator = _separator(roles["answers"], rows)
    _check_empty(tables, found)
    for role in NAMES:  # a column of this very name that is something else
        if role not in roles and table.column(role) is not None and not (has_splits and role == "split"):
            roles[role] = ""
    return found


def text_length(samples: Sequence[Samples]) -> int:
    """About how many tokens the longest text has, [CLS] and [SEP] included: words and marks, and a third more for pieces."""
    longest = 1
    for part in samples:
        for text in part.texts():
            longest = max(longest, len(re.findall(r"\w+|[^\w\s]", text[:10_000])))
    return round(longest * 4 / 3) + 2


def median_size(samples: Sequence[Samples]) -> tuple[int, int] | None:
    """The median of the images' shorter sides, and of their longer ones to that; None where none can be read."""
    paths = [path for part in samples for path in part.image_paths()]
    sizes = []
    for place in range(0, len(paths), max(1, len(paths) // MEASURED)):
        try:
            sizes.append(sorted(upright_size(paths[place])))
        except BadImageError:
            continue
    if not sizes:
        return None
    short, long = np.median(np.array(sizes), axis=0).tolist()
    return round(short), round(long)


def least_occurrences(counts: Counter[str], most: int) -> int:
    """How often an answer must occur that at most `most` answers do."""
    ordered = sorted(counts.values(), reverse=True)
    return 1 if len(ordered) <= most else ordered[most] + 1


def _named(table: Table, role: str, name: str) -> str:
    """The column that was given for a role, "" for none. Raises ConfigError where it is not there."""
    found = table.column(name) if name else ""
    if found is None:
        raise ConfigError(f"columns.{role}", f"{name!r}: {table.name} has no such column{table.known(name)}")
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _called(role: str, columns: Sequence[str]) -> list[str]:
    """The columns that are called as a role's are, the likeliest first; else the only one that is so but for words such as text
    ("Question Text")."""
    wanted = NAMES[role].split()
    named = sorted((wanted.index(_letters(name)), name) for name in columns if _letters(name) in wanted)
    if named:
        return [name for _, name in named]
    others = {other for names in NAMES.values() for other in names.split()}
    nearly = [name for name in columns if _letters(name) not in others and _without_fillers(name) in wanted]
    return nearly if len(nearly) == 1 else []


def _without_fillers(name: str) -> str:
    """The letters of a column's name without words that say no role: "question" of "Question Text" and "questionText"."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.strip()).casefold())
    return "".join(word for word in words if word not in FILLERS)


def _first_rows(table: Table) -> list[Row]:
    found, held = [], 0  # bytes of images in cells
    for row in table.rows():
        found.append(row)
        for cell in row.cells.values():
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            held += len(content) if isinstance(content, bytes) else 0
        if len(found) == LOOKED_AT or held > HELD_BYTES:
            break
    if not found:
        raise UserError(f"{table.key}={table.name!r}: has columns and no rows")
    return found


def _images_in(column: str, rows: Sequence[Row]) -> list[cells.Image]:
    """The images of a column's first cells; [] where it has something else."""
    found = []
    for row in rows:
        try:
            image = cells.image(row.cells[column])
        except ValueError:
            return []
        if image is not None:
            found.append(image)
    return found


def _are_inside(found: Sequence[cells.Image]) -> bool:
    """Whether images are in the table, or URLs."""
    return bool(found) and all(image.path is None for image in found)


def _share_there(found: Sequence[cells.Image], folder: str, data_dir: Path) -> float:
    """How many of the images are files there, 0…1."""
    paths = [data_dir / _path(folder, image.path) for image in found if image.path is not None]
    return 1 - len(missing_files(paths)) / len(paths) if paths else 0.0


def _path(folder: str, name: str) -> str:
    return folder.replace("{image}", name) if "{image}" in folder else os.path.join(folder, name)


def _image_column(table: Table, named: list[str], rows: Sequence[Row], images: str, data_dir: Path, taken: set[str]) -> str:
    """The column of images: the first called so whose cells are images that are there, else any such, else the first."""
    others = [name for name in table.columns if name not in named and name not in taken]
    for names in (named, others):
        for name in names:
            found = _images_in(name, rows)
            if _are_inside(found):
                return name
            if any(_share_there(found, folder, data_dir) > 0.5 for folder in _folders(table, images)):
                return name
    if not named:
        raise UserError(
            f"{table.name}: no column is called as images are, nor has the names of files"
            f"{f' in {images!r}' if images else ''}; say which: columns.image=NAME{table.known('image')}"
        )
    return named[0]


def _folders(table: Table, images: str) -> Iterator[str]:
    """Where images may be: the folder that is given, else those beside the table; and names without their suffix."""
    beside = Path(table.name).parent
    near = [str(path) for path in sorted(beside.glob("*/")) if not path.name.startswith(".")]
    given = [images] if images else ["" if str(beside) == "." else str(beside), *near]
    yield from given
    if images and "{image}" in images:
        return
    for folder in given:
        for suffix in SUFFIXES:
            yield os.path.join(folder, f"{{image}}{suffix}")


def _folder(table: Table, columns: Sequence[str], rows: Sequence[Row], images: str, data_dir: Path) -> str:
    """The folder, or the pattern, by which most images are found; where none are, the one that is given."""
    found = [image for column in columns for image in _images_in(column, rows)]
    if not found or _are_inside(found):
        return images
    best, share = images, 0.0
    for folder in _folders(table, images):
        there = _share_there(found, folder, data_dir)
        if there > share:
            best, share = folder, there
    if not share and images:  # the names may begin with the folder
        outer = os.path.dirname(images.rstrip("/"))
        if _share_there(found, outer, data_dir):
            return outer
    return best


def _task(table: Table, roles: dict[str, str], is_pair: bool) -> str:
    if is_pair:
        return "nlvr2"
    if "question" in roles and {"answer", "answers"} & roles.keys():
        return "vqa"
    if "caption" in roles:
        return "retrieval"
    lacks = "a column of answers" if "question" in roles else "a column of questions or captions"
    role = "answer" if "question" in roles else "question"
    raise UserError(
        f"{table.name}: {lacks} is not found; say which: columns.{role}=NAME (its columns: {', '.join(table.columns)})"
    )


def _has_few(column: str, rows: Sequence[Row]) -> bool:
    try:
        kinds = {cells.text(row.cells[column]) for row in rows}
    except ValueError:
        return False
    return 1 < len(kinds) <= MAX_KINDS


def _separator(column: str, rows: Sequence[Row]) -> str | None:
    """What divides answers, where most cells are text that has it."""
    written = [row.cells[column] for row in rows if isinstance(row.cells[column], str)]
    for separator in ("|", ";"):
        if written and sum(separator in cell for cell in written) > len(written) / 2:
            return separator
    return None


def _check_split(tables: Sequence[Table], found: Columns, given: dict[str, str]) -> None:
    """Which of the table's splits is which; without one for training the column is no split."""
    column = found.roles.get("split")
    if not column:
        return
    counts = Counter(_split_of(table, row, column) for table in tables for row in table.rows([column]))
    counts.pop("", None)
    found.use = splits_of(list(counts), given)
    if "train" not in found.use:
        shown = ", ".join(list(counts)[:MAX_NAMED])
        found.remarks.append(
            f"column {column!r} ({shown}) says no training split, and is left out; use={{train: NAME}} names the value that is"
        )
        found.roles["split"] = ""
        found.use = {}
        return
    found.remarks += unused(counts, found.use, f"column {column!r}: ")


def unused(counts: Mapping[str, int], use: dict[str, str], where: str) -> Iterator[str]:
    """What to say of the splits of a table that are none of train, val and test. `counts`: the rows of each."""
    left = {name: count for name, count in counts.items() if name not in use.values()}
    if not left:
        return
    shown = ", ".join(
        f"{name!r:.40} ({count:,} row{'' if count == 1 else 's'})" for name, count in list(left.items())[:MAX_NAMED]
    )
    more = f" and {len(left) - MAX_NAMED:,} more ({sum(left.values()):,} rows in all)" if len(left) > MAX_NAMED else ""
    target = next((split for split in ("val", "test") if split not in use), "test")
    taken = f"use={{{target}: {next(iter(left))}}} takes {'it' if len(left) == 1 else 'the first'}"
    instead = f" in place of {use[target]!r}" if target in use else ""
    are = "is" if len(left) == 1 else "are"
    yield f"{where}{shown}{more} {are} not taken for train, val or test, and left out; {taken}{instead}"


def _split_of(table: Table, row: Row, column: str) -> str:
    try:
        return cells.text(row.cells[column])
    except ValueError as error:
        raise UserError(f"{table.name}: {row.where}: column {column!r} {error}") from error


def splits_of(names: Sequence[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """By train, val and test, the one of `names` that means it, `given` before all. Of several that may, the one that is
    called so; else none, for it would be a guess."""
    found = dict(given or {})
    free = [name for name in names if name not in found.values()]
    is_open = []
    for split in [split for split in SPLITS if split not in found]:
        named = [name for name in free if _letters(name) in SPLITS[split].split()]
        named = [name for name in named if name == split] or named
        if len(named) == 1:
            found[split] = named[0]
        elif not named and split != "train":
            is_open.append(split)
    either = [name for name in free if _letters(name) in EITHER.split()]
    if is_open and len(either) == 1:
        found[is_open[0]] = either[0]
    return found


def _check_ids(tables: Sequence[Table], found: Columns) -> None:
    """Ids that are duplicated, or missing, are none."""
    column = found.roles.get("id")
    if not column:
        return
    first: dict[Any, tuple[str, Place]] = {}
    wrong: list[Place] = []
    for table in tables:
        for row in table.rows([column]):
            try:
                own = cells.sample_id(row.cells[column])
            except ValueError:
                wrong.append(row.place)
                continue
            if first.setdefault(own, (table.name, row.place)) != (table.name, row.place):
                wrong.append(row.place)
    if wrong:
        found.remarks.append(
            f"column {column!r}: {named_rows(wrong)} {'repeats' if len(wrong) == 1 else 'repeat'} an id or "
            f"{'has' if len(wrong) == 1 else 'have'} none; rows are numbered by image instead"
        )
        found.roles["id"] = ""


def _check_empty(tables: Sequence[Table], found: Columns) -> None:
    """Rows that lack something are left out; a split without any answers has secret ones."""
    split = found.roles.get("split")
    wanted = [name for role, name in found.roles.items() if name and role not in ("id", "split")]
    answers = {found.roles.get(role) for role in ("answer", "answers", "label")}
    for table in tables:
        lacking: dict[str, list[Place]] = {name: [] for name in [*wanted, *([split] if split else [])]}
        unanswered: dict[tuple[str, str], list[Place]] = defaultdict(list)  # by column and split
        totals: Counter[str] = Counter()  # by split
        for row in table.rows(list(lacking)):
            own = _split_of(table, row, split) if split else ""
            if split and own not in found.use.values():
                lacking[split] += [] if own else [row.place]
                continue
            totals[own] += 1
            for name in wanted:
                if cells.is_empty(row.cells[name]):
                    (unanswered[name, own] if name in answers else lacking[name]).append(row.place)
        for (name, own), places in unanswered.items():
            lacking[name] += places if len(places) < totals[own] else []
        for name, places in lacking.items():
            if places:
                are = "is" if len(places) == 1 else "are"
                found.remarks.append(f"{nothing_in(table.name, sorted(places), name)}, and {are} left out (on_empty: skip)")
                found.on_empty = "skip"
