"""What a run tells: log.jsonl, evaluations.jsonl, TensorBoard, a progress bar, and lines where there is no terminal."""

import json
import logging
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pixelbert_plugin.data import images
from pixelbert_plugin.errors import replacing, writing
from pixelbert_plugin.tasks.base import Result

logger = logging.getLogger(__name__)
NUM_PICTURES = 8  # validation images shown at each evaluation


class Events:
    """Writes a run's events; `update` is TensorBoard's step throughout."""

    def __init__(self, folder: Path, resumed_update: int, console: Console):
        """After a resume, what was logged past `resumed_update` is dropped, so that no update stands twice."""
        from torch.utils.tensorboard import SummaryWriter

        self.console = console
        self._log = folder / "log.jsonl"
        self._progress: Progress | None = None
        self._evaluations = folder / "evaluations.jsonl"
        with writing(folder):
            for file in (self._log, self._evaluations):
                _cut(file, resumed_update)
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_update + 1)
        threading.excepthook = _quiet_writer_thread

    def flush(self) -> None:
        with writing(self._log):
            self._writer.flush()

    def close(self) -> None:
        with writing(self._log):
            self._writer.close()

    def config(self, text: str, flat: dict[str, Any], used: dict[str, str]) -> None:
        """The resolved configuration as text, its leaves as hparams, and what was `used` of it: precision, its backend, …"""
        from torch.utils.tensorboard.summary import hparams

        self._writer.add_text("config", "```yaml\n" + text + "\n```", 0)
        self._writer.add_text("used", "  \n".join(f"{name}: {value}" for name, value in used.items()), 0)
        self.console.out("  ".join(f"{name} {value}" for name, value in used.items()), highlight=False)
        leaves = flat | {f"used.{name}": value for name, value in used.items()}
        plain = {key: value if isinstance(value, int | float | bool | str) else str(value) for key, value in leaves.items()}
        for summary in hparams(plain, {}):
            self._writer.file_writer.add_summary(summary)

    def train(self, record: dict[str, Any], padding: dict[str, float]) -> None:
        """One logged update: a line in log.jsonl, scalars in TensorBoard, the progress bar or a line on the console."""
        with writing(self._log):
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            update = record["update"]
            for key, value in record.items():
                if isinstance(value, dict):
                    for name, number in value.items():
                        self._writer.add_scalar(f"train/{key}/{name}", number, update)
                elif key != "update" and isinstance(value, int | float):
                    self._writer.add_scalar(f"train/{key}", value, update)
            for name, share in padding.items():
                self._writer.add_scalar(f"padding/{name}", share, update)
        if self._progress is not None:
            rates = "/".join(f"{rate:.1e}" for rate in record["lr"].values())
            shown = f"loss {record['loss']:.3f}  lr {rates}  {record['samples_per_second']:.0f} samples/s"
            self._progress.update(self._task, completed=update, shown=shown)
        else:
            self.console.out(f"update {update}  {_describe(record)}", highlight=False)

    def evaluation(self, split: str, metrics: dict[str, float], update: int) -> None:
        """An evaluation while training: a line in evaluations.jsonl, scalars in TensorBoard, a line on the console."""
        with writing(self._log):
            record = {"update": update, **{f"{split}/{name}": value for name, value in metrics.items()}}
            with self._evaluations.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in metrics.items():
                # a kind of question may have a slash ("yes/no"), which would nest the chart
                self._writer.add_scalar(f"{split}/" + name.replace("yes/no", "yes-no"), value, update)
            self._writer.flush()
        shown = {name: value for name, value in metrics.items() if "[" not in name}
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        self.console.out(f"{split} after update {update}: {figures}", highlight=False)

    def pictures(self, split: str, results: list[Result], update: int) -> None:
        """Eight images with text, true and predicted answer."""
        with writing(self._log):
            self._writer.add_figure(f"{split}/predictions", _figure(_spread(results)), update)

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
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def advance(self, update: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=update)


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


def _quiet_writer_thread(error: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer thread fails on a full disk; the main thread gets that error too, and tells it in one line."""
    if type(error.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(error)


def results_table(results: dict[str, float]) -> Iterator[Table]:
    """One table per split and data set: metrics as columns and kinds of samples as rows, or metrics as rows without kinds."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in results.items():
        if key.count("/") < 2:
            continue
        split, dataset, metric = key.split("/", 2)
        name, _, kind = metric.partition("[")
        tables.setdefault(f"{split}/{dataset}", {}).setdefault(kind.rstrip("]") or "all", {})[name] = value
    for title, rows in tables.items():
        if list(rows) == ["all"]:
            table = Table("metric", "value", title=escape(title))
            for name, value in rows["all"].items():
                table.add_row(escape(name), _shown(name, value))
        else:
            columns = list(dict.fromkeys(name for row in rows.values() for name in row))
            table = Table("kind", *map(escape, columns), title=escape(title))
            for kind, row in rows.items():
                table.add_row(escape(kind), *(_shown(name, row[name]) if name in row else "" for name in columns))
        yield table


def _shown(name: str, value: float) -> str:
    if name.startswith("num_"):
        return f"{int(value)}"
    return f"{value:.1f}" if name.endswith("_rank") else f"{100 * value:.2f} %"


def _describe(record: dict[str, Any]) -> str:
    rates = "  ".join(f"lr {name} {rate:.2e}" for name, rate in record["lr"].items())
    speed = record["samples_per_second"]
    return f"epoch {record['epoch']:.2f}  loss {record['loss']:.4f}  {rates}  {speed:.1f} samples/s"


def _cut(path: Path, last_update: int) -> None:
    """Keep a log's records up to `last_update`."""
    kept = [line for line in _lines(path) if json.loads(line)["update"] <= last_update] if path.exists() and last_update else []
    with replacing(path) as aside:
        aside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _lines(path: Path) -> list[str]:
    """The records of a log; what a kill or an editor left that is none is dropped."""

    def is_record(line: str) -> bool:
        try:
            return isinstance(json.loads(line)["update"], int)
        except (ValueError, KeyError, TypeError):
            return False

    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if is_record(line)]


def _spread(results: list[Result]) -> list[Result]:
    """Results of eight different images, evenly over the split; the same ones at every evaluation."""
    by_image: dict[tuple, list[Result]] = {}
    for result in results:
        by_image.setdefault(result.sample.image_ids, []).append(result)
    groups, chosen = list(by_image.values()), min(NUM_PICTURES, len(by_image))
    picked = [groups[index * len(groups) // chosen] for index in range(chosen)]
    return [group[index % len(group)] for index, group in enumerate(picked)]  # not the first question of each


def _figure(results: list[Result]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, NUM_PICTURES // 2, squeeze=False)
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
