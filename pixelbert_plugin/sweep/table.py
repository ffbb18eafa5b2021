"""A sweep's results as a Markdown table (mean ± standard deviation over seeds) and a picture."""

import statistics
from pathlib import Path

from pixelbert_plugin.errors import writing
from pixelbert_plugin.sweep import cells
from pixelbert_plugin.sweep.plan import SweepConfig, cell, seeds


def values(config: SweepConfig, row: str, stage: str) -> list[float]:
    """The stage's metric of every seed that was run."""
    found = [cells.results(cell(config, row, stage, seed)) for seed in seeds(config, row, stage)]
    metric = config.stages[stage].metric or ""
    return [result[metric] for result in found if result is not None]


def markdown(config: SweepConfig) -> str:
    columns = {name: stage for name, stage in config.stages.items() if stage.metric is not None}
    lines = [
        "| | " + " | ".join(stage.title or str(stage.metric) for stage in columns.values()) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in config.rows:
        shown = []
        for name in columns:
            if name in config.rows[row].skip:
                shown.append("–")
            else:
                shown.append(_shown(values(config, row, name), len(seeds(config, row, name))))
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def write(config: SweepConfig) -> tuple[Path, Path]:
    """The report and, beside it, the picture."""
    report = Path(config.report)
    picture = report.with_suffix(".svg")
    with writing(report, "report"):
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(f"# {config.title}\n\n{markdown(config)}\n![{config.title}]({picture.name})\n", encoding="utf-8")
        _plot(config, picture)
    return report, picture


def _shown(found: list[float], wanted: int) -> str:
    if not found:
        return "not run"
    mean = f"{100 * statistics.mean(found):.1f}"
    spread = f" ± {100 * statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return mean + spread + (f" ({len(found)} of {wanted} seeds)" if len(found) < wanted else "")


def _plot(config: SweepConfig, path: Path) -> None:
    """Above, each metric by row with its spread; below, the validation curves of every seed."""
    from matplotlib.figure import Figure

    columns = {name: stage for name, stage in config.stages.items() if stage.metric is not None}
    figure = Figure(figsize=(4.2 * len(columns), 6.4), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for column, (name, stage) in enumerate(columns.items()):
        bars, curves = axes[0][column], axes[1][column]
        bars.set_title(stage.title or str(stage.metric), fontsize=10)
        for place, row in enumerate(config.rows):
            color = f"C{place}"
            found = [] if name in config.rows[row].skip else values(config, row, name)
            if found:
                bars.barh(place, 100 * statistics.mean(found), color=color)
                bars.plot([100 * value for value in found], [place] * len(found), "k.", markersize=4)
            metric = "val/" + str(stage.metric).split("/", 1)[1]
            for index, seed in enumerate(seeds(config, row, name)):
                points = cells.curve(cell(config, row, name, seed), metric)
                if points:
                    label = row if index == 0 else None
                    curves.plot(*zip(*((u, 100 * v) for u, v in points), strict=True), color=color, label=label, linewidth=1)
        bars.set_yticks(range(len(config.rows)), list(config.rows) if column == 0 else [])
        bars.invert_yaxis()
        bars.set_xlabel("%")
        curves.set_xlabel("update")
        curves.set_ylabel("validation, %" if column == 0 else "")
    if axes[1][0].get_legend_handles_labels()[0]:
        axes[1][0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
