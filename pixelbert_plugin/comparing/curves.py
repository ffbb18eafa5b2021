"""A picture of runs' curves: losses, validation metrics, gradients and rates over the epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_plugin.comparing.runs import Run
from pixelbert_plugin.errors import UserError, replacing, writing

MADE_BY = "pixelbert-run --compare"  # in a picture's own metadata
SMOOTHED = 30  # points of a curve that a mean is taken over, at most; a thirtieth of it, if that is less
NOT_TAUGHT = ("ceiling", "prior", "num_", "loss")  # metrics that say nothing of the model, or have a panel of their own
MOST = 3  # panels of validation metrics

Points = tuple[np.ndarray, np.ndarray]


def refuse(path: Path) -> None:
    """Raise UserError where the picture would replace a file that is none of ours."""
    if path.exists() and MADE_BY.encode() not in path.read_bytes()[:4096]:
        raise UserError(f"picture={str(path)!r}: holds another file; choose another picture=PATH")


def draw(runs: Sequence[Run], path: Path) -> bool:
    """Write the picture; False where no run has a log."""
    panels: dict[str, list[list[tuple[str, Points]]]] = {}
    panels["loss (validation dashed)"] = [
        [("-", smoothed(points_of(run, "loss"))), *(("--", each) for each in _validation(run, "loss").values())] for run in runs
    ]
    names = dict.fromkeys(name for run in runs for name in _validation(run, ""))
    for name in list(names)[:MOST]:
        panels[name] = [[("-", _validation(run, "").get(name, _NONE))] for run in runs]
    panels["norm of the gradient"] = [[("-", smoothed(points_of(run, "grad_norm")))] for run in runs]
    groups = dict.fromkeys(group for run in runs for record in run.log for group in record.get("lr", {}))
    styles = ("-", "--", ":", "-.")
    panels[f"learning rate ({', '.join(groups)})"] = [
        [(styles[place % 4], points_of(run, "lr", group)) for place, group in enumerate(groups)] for run in runs
    ]
    shown = {title: by_run for title, by_run in panels.items() if any(len(points[0]) for own in by_run for _, points in own)}
    if not shown:
        return False
    from matplotlib.figure import Figure

    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows + 0.4), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (title, by_run) in zip(axes, shown.items(), strict=False):
        for number, (run, own) in enumerate(zip(runs, by_run, strict=True)):
            for place, (style, (x, y)) in enumerate(own):
                mark = "o" if len(x) == 1 else None
                axis.plot(
                    x, y, style, color=f"C{number % 10}", marker=mark, label=run.name if place == 0 else None, linewidth=1.2
                )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[len(shown) :]:
        axis.axis("off")
    axes[0].legend(fontsize=8)
    kind = path.suffix[1:].lower()
    mark = {"png": "Software", "pdf": "Creator", "svg": "Creator"}[kind]
    with writing(path, "picture"), replacing(path) as aside:
        figure.savefig(aside, format=kind, dpi=110, metadata={mark: MADE_BY})
    return True


def points_of(run: Run, key: str, group: str | None = None) -> Points:
    """Epochs and values of a key of log.jsonl, of a parameter group's where there is one for each."""

    def of(record: dict[str, Any]) -> Any:
        value = record.get(key)
        return value if group is None or not isinstance(value, dict) else value.get(group)

    pairs = [(record["epoch"], of(record)) for record in run.log if isinstance(record.get("epoch"), int | float)]
    known = [(epoch, value) for epoch, value in pairs if isinstance(value, int | float)]
    return np.array([epoch for epoch, _ in known]), np.array([value for _, value in known], dtype=np.float64)


def smoothed(points: Points) -> Points:
    """The mean of so many points before and behind each, fewer at the ends."""
    x, y = points
    half = min(SMOOTHED, len(y) // 30) // 2
    if not half:
        return points
    sums = np.concatenate([[0.0], np.cumsum(y)])
    places = np.arange(len(y))
    reach = np.minimum(half, np.minimum(places, places[::-1]))
    return x, (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def _validation(run: Run, wanted: str) -> dict[str, Points]:
    """By metric, over the epochs of the evaluated updates: those called `wanted`, or "": all that say how good the model is."""
    logged = [record for record in run.log if isinstance(record.get("epoch"), int | float)]
    if not logged:
        return {}
    updates, epochs = [0, *(record["update"] for record in logged)], [0.0, *(record["epoch"] for record in logged)]
    found: dict[str, list[tuple[float, float]]] = {}
    for record in run.evaluations:
        for key, value in record.items():
            name = key.rpartition("/")[2]
            is_wanted = name == wanted if wanted else "[" not in key and not any(part in name for part in NOT_TAUGHT)
            if key != "update" and is_wanted and isinstance(value, int | float):
                found.setdefault(key, []).append((float(np.interp(record["update"], updates, epochs)), value))
    return {key: (np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])) for key, pairs in found.items()}


_NONE: Points = (np.array([]), np.array([]))
