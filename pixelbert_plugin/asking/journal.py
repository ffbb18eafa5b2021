"""The answers to a file of questions: while they are made, so that this goes on after a kill, and as files at the end.

    answers.jsonl.partial         a line that says what is asked, then a line for each row, in order
    answers.jsonl                 the rows with what was predicted, once all are there; .csv likewise
    answers.jsonl.errors.jsonl    the rows that could not be asked: {"row": 3, "reason": "…"}; none where all could
    answers.jsonl.meta.json       what was asked of what, so that the same command knows that it is done

Each file is whole or not there. A line that was cut off is written again.
"""

import contextlib
import csv
import fcntl
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pixelbert_plugin.errors import UserError, replacing, writing
from pixelbert_plugin.system.digest import digest_of

PREDICTED = "predicted"  # an answered row's key
HEAD = b'{"marks": '  # how the first line begins
Marks = dict[str, Any]  # what the answers depend on, by name


class Journal:
    """One file of answers, which nobody else writes meanwhile."""

    def __init__(self, output: Path, marks: Marks, overwrite: bool):
        self.output, self.marks, self.overwrite = output, marks, overwrite
        self.partial, self.meta = (output.with_name(f"{output.name}{end}") for end in (".partial", ".meta.json"))
        self.errors = output.with_name(f"{output.name}.errors.jsonl")
        self.rows, self.bad = 0, 0  # that are there; of them, those that could not be asked
        self._file: IO[bytes] | None = None

    def is_done(self) -> bool:
        """Whether the answers to just this are there. Raises UserError where others are, unless they may be replaced."""
        if self.partial.exists() or not self.output.exists():
            return False
        found = _parsed(self.meta.read_bytes()) if self.meta.is_file() else None
        if not isinstance(found, dict) or not isinstance(found.get("rows"), int) or not isinstance(found.get("bad"), int):
            found = None
        is_whole = found is not None and digest_of(self.output) == found.get("sha256")
        if self.overwrite:
            return False
        if found is None or not is_whole:
            what = "is not as it was written" if found is not None else "is there already, and not of this command"
            raise UserError(f"output={str(self.output)!r}: {what}; choose another file, or overwrite=true")
        self._require_same(found.get("marks"), "holds")
        self.rows, self.bad = found["rows"], found["bad"]
        return True

    def __enter__(self) -> "Journal":
        with writing(self.partial, "output"):
            self._file = open(self.partial, "a+b")
        try:
            self._own()
            self._file.seek(0)
            head, end = self._file.readline(), 0
            found = _parsed(head)
            is_same = isinstance(found, dict) and found.get("marks") == self.marks
            is_torn = not head.endswith(b"\n") and HEAD.startswith(head[: len(HEAD)])
            if not is_same and not is_torn and not self.overwrite:
                self._require_same(found.get("marks") if isinstance(found, dict) else None, "was begun")
            if is_same:
                end = len(head)
                for line in self._file:
                    row = _parsed(line)
                    if not isinstance(row, dict) or row.get("row") != self.rows + 1:
                        break
                    self.rows, self.bad, end = self.rows + 1, self.bad + (PREDICTED not in row), end + len(line)
            with writing(self.partial, "output"):
                self._file.truncate(end)
                if not end:
                    self._write([{"marks": self.marks}])
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, lines: list[dict[str, Any]]) -> None:
        """The next rows, each with its number, `row`."""
        with writing(self.partial, "output"):
            self._write(lines)
        self.rows += len(lines)
        self.bad += sum(PREDICTED not in line for line in lines)

    def finish(self) -> None:
        """Make the files of what is there. Killed meanwhile, it is done again by the next call."""
        with writing(self.output, "output"):
            if self.bad:
                with replacing(self.errors) as aside, open(aside, "wb") as file:
                    file.writelines(line for line, row in self._lines() if PREDICTED not in row)
            else:
                self.errors.unlink(missing_ok=True)
            with replacing(self.output) as aside:
                if self.output.suffix.lower() == ".csv":
                    self._as_csv(aside)
                else:
                    with open(aside, "wb") as file:
                        file.writelines(line for line, row in self._lines() if PREDICTED in row)
                about = {"marks": self.marks, "rows": self.rows, "bad": self.bad, "sha256": digest_of(aside)}
                with replacing(self.meta) as beside:
                    beside.write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            self.partial.unlink()

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        with open(self.partial, "rb") as file:
            next(file)
            for line in file:
                yield line, json.loads(line)

    def _as_csv(self, target: Path) -> None:
        """`predicted_answer`, `predicted_probability`, and of those that come after the best `predicted_answer_2`, …"""
        most, own, names = 0, dict[str, None](), dict[str, None]()
        for _, row in self._lines():
            predicted = row.pop(PREDICTED, None)
            if predicted is not None:
                most = max(most, len(predicted))
                own |= dict.fromkeys(row)
                names |= dict.fromkeys(name for each in predicted for name in each)
        header = [*own, *(_column(name, place) for place in range(most) for name in names)]
        with open(target, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, header, lineterminator="\n", restval="")
            writer.writeheader()
            for _, row in self._lines():
                predicted = row.pop(PREDICTED, None)
                if predicted is not None:
                    for place, each in enumerate(predicted):
                        row |= {_column(name, place): value for name, value in each.items()}
                    writer.writerow({name: _cell(value) for name, value in row.items()})

    def _write(self, lines: list[dict[str, Any]]) -> None:
        assert self._file is not None
        text = io.StringIO()
        for line in lines:
            text.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.write(text.getvalue().encode("utf-8", "backslashreplace"))
        self._file.flush()

    def _own(self) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            given = f"output={str(self.output)!r}"
            raise UserError(f"{given}: another process writes it now; wait, or choose another file") from error
        except OSError:  # a file system without locks
            return

    def _require_same(self, marks: Any, verb: str) -> None:
        given, remedy = f"output={str(self.output)!r}", "choose another file, or overwrite=true"
        if not isinstance(marks, dict):
            raise UserError(f"{given}: {self.partial.name} is there already, and not of this command; {remedy}")
        others = [name for name, value in self.marks.items() if marks.get(name) != value]
        if others:
            told = ", ".join(_told(name, marks.get(name), self.marks[name]) for name in others)
            what = "holds answers for" if verb == "holds" else "was begun with"
            raise UserError(f"{given}: {what} another {told}; {remedy}")


def _told(name: str, former: Any, now: Any) -> str:
    """A mark that differs; digests say nothing to anybody."""
    is_digest = any(isinstance(value, str) and len(value) == 64 for value in (former, now))
    return name if is_digest else f"{name} ({former!r}, now {now!r})"


def _parsed(line: bytes) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line) if line.endswith((b"\n", b"}\n")) else None
    return None


def _column(name: str, place: int) -> str:
    return f"{PREDICTED}_{name}" + (f"_{place + 1}" if place else "")


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
