"""Files of questions, answered row by row. Rows are taken `batch_size` at a time, counted from the file's first: what is asked
together is the same in a run that goes on after a kill, and so is every digit. Images of the next rows are read meanwhile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelbert_plugin.asking import rows
from pixelbert_plugin.asking.answer import AnswerQuestion
from pixelbert_plugin.asking.compare import CompareQuestion
from pixelbert_plugin.asking.fill import FillQuestion
from pixelbert_plugin.asking.images import Decoded, ahead, read_some
from pixelbert_plugin.asking.journal import PREDICTED, Journal
from pixelbert_plugin.asking.match import MatchQuestion
from pixelbert_plugin.asking.options import COLUMNS, Way
from pixelbert_plugin.asking.question import Question, cut
from pixelbert_plugin.asking.rows import Row
from pixelbert_plugin.asking.search import Gallery, SearchQuestion
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import nearest
from pixelbert_plugin.system.progress import NoProgress

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel

QUESTIONS: dict[Way, type[Question[Any]]] = {
    "answer": AnswerQuestion,
    "match": MatchQuestion,
    "search": SearchQuestion,
    "compare": CompareQuestion,
    "fill": FillQuestion,
}
ROW = "row"  # the number of a row among its values


def way_of(found: Sequence[str], model: "LoadedModel", asked: Way | None, source: str) -> Way:
    """What the rows of a file with these columns ask. Raises UserError where it is nothing, or open."""
    for name in (ROW, PREDICTED):
        if any(column == name or column.startswith(f"{PREDICTED}_") for column in found):
            column = name if name in found else next(each for each in found if each.startswith(PREDICTED))
            raise UserError(f"{source}: has a column {column!r}, which the answers will have; rename it")
    if asked is not None:
        if missing := [name for name in COLUMNS[asked] if name not in found]:
            raise UserError(f"{source}: ask={asked} needs the column {missing[0]!r}{nearest(missing[0], list(found))}")
        return asked
    fitting: list[Way] = [way for way in QUESTIONS if set(COLUMNS[way]) <= set(found)]
    if fitting != ["search"]:  # a text alone
        fitting = [way for way in fitting if way != "search"]
    if not fitting:
        forms = "; ".join(", ".join(columns) for columns in COLUMNS.values())
        raise UserError(f"{source}: its columns are {', '.join(map(repr, found))}; they must be one of: {forms}")
    can = [way for way in fitting if QUESTIONS[way].asks in model.task.asked()]
    if len(can) > 1:
        raise UserError(f"ask: rows with {', '.join(found)} may ask {' or '.join(can)}; say which, as ask={can[0]}")
    return (can or fitting)[0]


@dataclass(frozen=True)
class Asked:
    """A row whose images were read: to be asked, or why not."""

    row: Row
    text: str
    images: tuple[Decoded, ...]
    problem: str | None


class Answering:
    """What is done with each row of a file."""

    def __init__(self, question: Question[Any], way: Way, folder: Path, batch_size: int, gallery: Gallery | None = None):
        self.question, self.way, self.folder, self.batch_size, self.gallery = question, way, folder, batch_size, gallery
        *self.image_columns, self.text_column = COLUMNS[way]
        question.text = self.text_column
        self.cut = 0  # texts that were cut

    def run(self, source: Path, journal: Journal, progress: NoProgress) -> None:
        """Answer the rows that the journal lacks."""
        done, found = journal.rows, rows.read(source, "input")
        blocks = iter(lambda: list(islice(found, self.batch_size)), [])
        for block in ahead(self._read, (block for block in blocks if block[-1].number > done)):
            lines = [line for line in self._answered(block) if line[ROW] > done]
            journal.add(lines)
            progress.advance(len(lines))

    def _read(self, block: Sequence[Row]) -> list[Asked]:
        """In the thread that reads ahead: an image that several rows ask about is read once."""
        processor = self.question.model.processors["image"]
        read: dict[Path, Decoded | str] = {}

        def asked(row: Row) -> Asked:
            problem = row.problem or self._missing(row)
            if problem is None:
                try:
                    self.question.check(row.values[self.text_column])
                except UserError as error:
                    problem = str(error)
            if problem is not None:
                return Asked(row, "", (), problem)
            paths = [self.folder / row.values[name] for name in self.image_columns]
            for path in paths:
                if path not in read:
                    (read[path],) = read_some(processor, [path])
            images = [read[path] for path in paths]
            problem = next((each for each in images if isinstance(each, str)), None)
            text = row.values[self.text_column]
            return Asked(row, text, tuple(each for each in images if isinstance(each, Decoded)), problem)

        return [asked(row) for row in block]

    def _missing(self, row: Row) -> str | None:
        for name in COLUMNS[self.way]:
            if name not in row.values:
                return f"has no {name}{nearest(name, list(row.values))}"
            if not isinstance(value := row.values[name], str) or (name in self.image_columns and not value):
                return f"{name}={value!r}: must be {'the path of an image' if name in self.image_columns else 'text'}"
        if reserved := {ROW, PREDICTED} & row.values.keys():
            return f"has a value {min(reserved)!r}, which the answers will have; rename it"
        return None

    def _answered(self, block: list[Asked]) -> Iterator[dict[str, Any]]:
        asked = [each for each in block if each.problem is None]
        self.cut += cut(self.question.model, [each.text for each in asked])
        answers = iter(self._answers(asked))
        for each in block:
            found = each.problem if each.problem is not None else next(answers)
            yield (
                {ROW: each.row.number, "reason": found}
                if isinstance(found, str)
                else {ROW: each.row.number, **each.row.values, PREDICTED: found}
            )

    def _answers(self, asked: list[Asked]) -> list[list[dict[str, Any]] | str]:
        """What was predicted for each, or why it could not be."""
        if not asked:
            return []
        try:
            return [self.question.rows(result) for result in self._results(asked)]
        except UserError as error:  # of one of them: an image that the model cannot take, say
            return [str(error)] if len(asked) == 1 else [answer for each in asked for answer in self._answers([each])]

    def _results(self, asked: list[Asked]) -> list[Any]:
        if isinstance(self.question, SearchQuestion) and self.gallery is not None:
            return self.question.search(self.gallery, [each.text for each in asked], self.batch_size)
        pairs = [(each.images[0] if len(each.images) == 1 else list(each.images), each.text) for each in asked]
        return self.question.of(pairs)
