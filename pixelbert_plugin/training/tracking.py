"""What a run tells: log.jsonl, evaluations.jsonl, TensorBoard, a progress bar, and lines where there is no terminal."""

import logging
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pixelbert_plugin.data import images
from pixelbert_plugin.errors import writing
from pixelbert_plugin.tasks.base import Result
from pixelbert_plugin.training import records
from pixelbert_plugin.training.board import Board, Cosmetic

logger = logging.getLogger(__name__)
PICTURES_PER_ROW = 4  # validation images shown at each evaluation
INCHES = (3.0, 4.0)  # width and height of one with its texts


class Events:
    """Writes a run's events; `update` is TensorBoard's step throughout. None of them ends a run: what cannot be written is
    told once."""

    def __init__(self, folder: Path, resumed_update: int, evaluated_update: int, console: Console, num_pictures: int = 8):
        """After a resume, what was logged past `resumed_update` is dropped, so that no update stands twice, and evaluations
        past `evaluated_update`. `num_pictures`: how many images of a validation are drawn."""
        self.console, self._num_pictures = console, num_pictures
        self._log, self._evaluations = folder / "log.jsonl", folder / "evaluations.jsonl"
        self._incomplete: set[Path] = set()  # logs that lack lines
        self._bar = Cosmetic("the progress bar")
        self._progress: Progress | None = None
        with writing(folder):
            records.cut(self._log, resumed_update)
            records.cut(self._evaluations, evaluated_update)
        self._board = Board(folder / "tensorboard", resumed_update)

    def flush(self) -> None:
        self._board.flush()

    def close(self) -> None:
        self._board.close()

    def config(self, text: str, flat: dict[str, Any], used: dict[str, str]) -> None:
        """The resolved configuration as text, its leaves as hparams, and what was `used` of it: precision, its backend, …"""
        shown = "  \n".join(f"{name}: {value}" for name, value in used.items())
        self._board.texts({"config": "```yaml\n" + text + "\n```", "used": shown})
        self.console.out("  ".join(f"{name} {value}" for name, value in used.items()), highlight=False)
        leaves = flat | {f"used.{name}": value for name, value in used.items()}
        plain = {key: value if isinstance(value, int | float | bool | str) else str(value) for key, value in leaves.items()}
        self._board.hparams(plain)

    def train(self, record: dict[str, Any], padding: dict[str, float]) -> None:
        """One logged update: a line in log.jsonl, scalars in TensorBoard, the progress bar or a line on the console."""
        self._append(self._log, record)
        scalars = {f"padding/{name}": share for name, share in padding.items()}
        for key, value in record.items():
            if isinstance(value, dict):
                scalars |= {f"train/{key}/{name}": number for name, number in value.items()}
            elif key != "update" and isinstance(value, int | float):
                scalars[f"train/{key}"] = value
        self._board.scalars(scalars, record["update"])
        progress = self._progress
        if progress is not None:
            rates = "/".join(f"{rate:.1e}" for rate in record["lr"].values())
            shown = f"loss {record['loss']:.3f}  lr {rates}  {record['samples_per_second']:.0f} samples/s"
            self._bar.attempt(lambda: progress.update(self._task, completed=record["update"], shown=shown))
        else:
            self.console.out(f"update {record['update']}  {_describe(record)}", highlight=False)

    def evaluation(self, split: str, metrics: dict[str, float], update: int) -> None:
        """An evaluation while training: a line in evaluations.jsonl, scalars in TensorBoard, a line on the console."""
        self._append(self._evaluations, {"update": update, **{f"{split}/{name}": value for name, value in metrics.items()}})
        # a kind of question may have a slash ("yes/no"), which would nest the chart
        self._board.scalars({f"{split}/" + name.replace("yes/no", "yes-no"): value for name, value in metrics.items()}, update)
        self._board.flush()
        shown = {name: value for name, value in metrics.items() if "[" not in name}
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        self.console.out(f"{split} after update {update}: {figures}", highlight=False)

    def pictures(self, split: str, results: list[Result], update: int) -> None:
        """Some images with text, true and predicted answer."""
        shown = _spread(results, self._num_pictures)
        if shown:
            self._board.picture(f"{split}/predictions", lambda: _figure(shown), update)

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
        if self.console.is_terminal:
            self._progress = Progress(
                BarColumn(bar_width=10),  # the whole fits 80 columns
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[shown]}"),
                console=self.console,
            )
            self._task = self._progress.add_task("training", total=total, completed=done, shown="")
        return self

    def __enter__(self) -> "Events":
        if self._progress is not None:
            self._bar.attempt(self._progress.start)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._bar.attempt(self._progress.stop)
            self._progress = None

    def advance(self, update: int) -> None:
        progress = self._progress
        if progress is not None:
            self._bar.attempt(lambda: progress.update(self._task, completed=update))


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


def _spread(results: list[Result], count: int) -> list[Result]:
    """Results of so many different images, evenly over the split; the same ones at every evaluation."""
    by_image: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        by_image.setdefault(result.sample.image_ids, []).append(result)
    groups, chosen = list(by_image.values()), min(count, len(by_image))
    picked = [groups[index * len(groups) // chosen] for index in range(chosen)]
    return [group[index % len(group)] for index, group in enumerate(picked)]  # not the first question of each


def _figure(results: list[Result]) -> Any:
    from matplotlib.figure import Figure

    columns = min(PICTURES_PER_ROW, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(INCHES[0] * columns, INCHES[1] * rows))
    # fixed: a layout that looks for room draws all texts several times
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.25 / rows, wspace=0.04, hspace=0.35)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, result in zip(axes.flat, results, strict=False):
        try:
            axis.imshow(images.read_image(Path(result.sample.images[0]), max_pixels=None).permute(1, 2, 0).numpy())
        except images.BadImageError:  # skipped, as on_bad_image says
            axis.text(0.5, 0.5, "the image cannot be read", ha="center", va="center", transform=axis.transAxes)
        right = result.prediction == result.truth
        axis.set_title(
            f"{textwrap.fill(result.sample.text, 44)}\ntrue: {result.truth}   predicted: {result.prediction}",
            fontsize=9,
            color="black" if right or result.truth is None else "firebrick",
        )
    return figure
