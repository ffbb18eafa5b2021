"""What a run tells: log.jsonl, evaluations.jsonl, its trackers, a progress bar, and lines where there is no terminal."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pixelbert_plugin.errors import writing
from pixelbert_plugin.tasks.base import Result
from pixelbert_plugin.training import pictures, records
from pixelbert_plugin.training.bar import Bar
from pixelbert_plugin.training.looks import Looker
from pixelbert_plugin.training.trackers import Trackers
from pixelbert_plugin.types import Batch, TrackedRun

logger = logging.getLogger(__name__)


class Events:
    """Writes a run's events; `update` is their step throughout. None of them ends a run: what cannot be written is told
    once."""

    def __init__(
        self,
        folder: Path,
        resumed_update: int,
        evaluated_update: int,
        console: Console,
        trackers: Trackers,
        num_pictures: int = 8,
        looker: Looker | None = None,
    ):
        """After a resume, what was logged past `resumed_update` is dropped, so that no update stands twice, and evaluations
        past `evaluated_update`. `num_pictures`: how many images of a validation are drawn. `looker`: looks at the model for
        them; None: nobody does."""
        self.console, self.trackers, self._num_pictures, self._looker = console, trackers, num_pictures, looker
        self._log, self._evaluations = folder / "log.jsonl", folder / "evaluations.jsonl"
        self._incomplete: set[Path] = set()  # logs that lack lines
        self._bar: Bar | None = None
        with writing(folder):
            records.cut(self._log, resumed_update)
            records.cut(self._evaluations, evaluated_update)

    def begin(self, run: TrackedRun) -> None:
        self.trackers.begin(run)

    def flush(self) -> None:
        self.trackers.flush()

    def final(self, metrics: dict[str, float]) -> None:
        """Of the evaluation after the training."""
        self.trackers.final(metrics)

    def close(self) -> None:
        self.trackers.close()

    def train(self, record: dict[str, Any], padding: dict[str, float]) -> None:
        """One logged update: a line in log.jsonl, scalars for the trackers, the progress bar or a line on the console."""
        self._append(self._log, record)
        scalars = {f"padding/{name}": share for name, share in padding.items()}
        for key, value in record.items():
            if isinstance(value, dict):
                scalars |= {f"train/{key}/{name}": number for name, number in value.items()}
            elif key != "update" and isinstance(value, int | float):
                scalars[f"train/{key}"] = value
        self.trackers.scalars(scalars, record["update"])
        if self._bar is not None and self._bar.is_there:
            rates = "/".join(f"{rate:.1e}" for rate in record["lr"].values())
            self._bar.show(f"loss {record['loss']:.3f}  lr {rates}  {record['samples_per_second']:.0f} samples/s")
        else:
            self.console.out(f"update {record['update']}  {_describe(record)}", highlight=False)

    def evaluation(self, split: str, metrics: dict[str, float], update: int) -> None:
        """An evaluation while training: a line in evaluations.jsonl, scalars for the trackers, a line on the console."""
        self._append(self._evaluations, {"update": update, **{f"{split}/{name}": value for name, value in metrics.items()}})
        self.trackers.scalars({f"{split}/{name}": value for name, value in metrics.items()}, update)
        self.trackers.flush()
        shown = {name: value for name, value in metrics.items() if "[" not in name}
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        self.console.out(f"{split} after update {update}: {figures}", highlight=False)

    def examples(self, split: str, results: list[Result], update: int) -> None:
        """Some images with text, true and predicted answer, right ones and wrong ones apart; where the model looked on fixed
        ones; captions by rank, and words that were filled in."""
        count = self._num_pictures
        if not count:
            return
        ranked = [result for result in results if result.rows and "caption" in result.rows[0]]
        if ranked:
            shown = pictures.spread(ranked, count)
            self.trackers.picture(f"{split}/best captions", partial(pictures.figure_of_rankings, shown), update)
        else:
            for name, is_right in (("right", True), ("wrong", False), ("predictions", None)):
                of_kind = [result for result in results if pictures.is_right(result) is is_right]
                if shown := pictures.spread(of_kind, count if is_right is None else -(-count // 2)):
                    self.trackers.picture(f"{split}/{name}", partial(pictures.figure, shown), update)
            tabled = [result for result in pictures.spread(results, count) if result.rows]
            self.trackers.texts(lambda: {f"{split}/words filled in": pictures.table(tabled)}, update)
        if self._looker is not None and (looks := self.trackers.found(partial(self._looker.looks, split))):
            self.trackers.picture(f"{split}/explanations", partial(pictures.figure_of_looks, looks), update)

    def sampled(self, loader: Any, micro_batches: list[Batch], update: int) -> None:
        """The pixels that `update` had drawn, on some of its images, as they were read."""
        if self._looker is not None and self._num_pictures and micro_batches:
            found = self.trackers.found(partial(self._looker.sampled, loader, micro_batches[0]))
            if found:
                self.trackers.picture("train/pixels drawn", partial(pictures.figure_of_sampled, found), update)

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        """A line that cannot be written is missing; the next one is tried all the same, since space may be there again."""
        try:
            records.append(path, record)
        except OSError as error:
            if path not in self._incomplete:
                logger.warning("%s: lines are missing from here on (%s); training goes on", path, error.strerror)
                self._incomplete.add(path)

    def bar(self, done: int, total: int) -> "Events":
        """A progress bar on a terminal; elsewhere logged updates are printed as lines."""
        self._bar = Bar(self.console, done, total)
        return self

    def __enter__(self) -> "Events":
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None

    def advance(self, update: int, seconds: float) -> None:
        """`seconds` of training until `update` was done."""
        if self._bar is not None:
            self._bar.advance(update, seconds)


class NoEvents:
    """What processes other than the main one tell: nothing."""

    def bar(self, done: int, total: int) -> "NoEvents":
        return self

    def __enter__(self) -> "NoEvents":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_arguments: None


def _describe(record: dict[str, Any]) -> str:
    rates = "  ".join(f"lr {name} {rate:.2e}" for name, rate in record["lr"].items())
    speed = record["samples_per_second"]
    return f"epoch {record['epoch']:.2f}  loss {record['loss']:.4f}  {rates}  {speed:.1f} samples/s"
