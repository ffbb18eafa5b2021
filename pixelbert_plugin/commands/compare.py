"""`pixelbert-run --compare RUN RUN …`: runs' folders → tables, examples and a picture of their curves."""

import dataclasses
import difflib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from pixelbert_plugin.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from pixelbert_plugin.comparing.bootstrap import Estimate
    from pixelbert_plugin.comparing.comparison import Comparison, Pair, Split

LONGEST = 60  # characters of a value in a table
WIDE = 120  # characters of a terminal, where a kind of samples stands on one line with its metric
KINDS_APART = 4  # of more kinds of samples than so only those are shown that are told apart


def compare(words: list[str], options: list[str]) -> str:
    """What is to be printed. `words`: the folders, and options behind them. Raises UserError."""
    from pixelbert_plugin.comparing import curves
    from pixelbert_plugin.comparing.comparison import compare_runs
    from pixelbert_plugin.comparing.options import CompareConfig
    from pixelbert_plugin.comparing.runs import read_runs
    from pixelbert_plugin.config.files import command_line
    from pixelbert_plugin.registry.schema import merge, nearest

    names = {field.name for field in dataclasses.fields(CompareConfig)}
    given = [*options, *(word for word in words if "=" in word and not Path(word).exists())]
    own = [option for option in given if option.partition("=")[0] in names]
    if wrong := [option for option in given if option.startswith("config=")]:
        raise UserError(f"{wrong[0]}: --compare reads the configurations of the runs' folders; leave it out")
    for name in (option.partition("=")[0] for option in given if option not in own):
        if difflib.get_close_matches(name, names, n=1, cutoff=0.8):
            raise UserError(f"--compare: {name}: unknown option{nearest(name, sorted(names))}")
    chosen = merge(CompareConfig, command_line(own))
    runs = read_runs([Path(word) for word in words if word not in given])
    picture = Path(chosen.picture or f"compare_{'_'.join(run.path.name or 'run' for run in runs)}.png")
    curves.refuse(picture)
    found = compare_runs(runs, chosen, [option for option in given if option not in own])
    drawn = curves.draw(runs, picture)
    if chosen.format == "json":
        return json.dumps({**found.as_json(), "picture": str(picture) if drawn else None}, indent=2, ensure_ascii=False)
    told = f"curves              {picture}" if drawn else "curves              none: the runs have no log.jsonl"
    return f"{shown(found, chosen.confidence)}\n{told}"


def shown(found: "Comparison", confidence: float) -> str:
    """The comparison as tables."""
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        console.print(_runs(found), end="\n\n")
        console.print(_options(found), end="\n\n")
        for split in found.splits:
            console.print(_metrics(found, split, confidence, console.width), end="\n\n")
            for pair in split.pairs:
                for line in _pair(found, split, pair):
                    console.out(line, highlight=False)
        if results := _results(found):
            console.print(results, end="\n\n")
    return captured.get() + "\n".join(f"note: {remark}" for remark in found.remarks)


def _runs(found: "Comparison") -> "Table":
    from rich.markup import escape

    table = _table("run", "folder", "update", "training")
    for run in found.runs:
        seconds = run.results.get("training_seconds")
        updates = run.log[-1]["update"] if run.log else 0
        table.add_row(escape(run.name), escape(str(run.path)), f"{updates:,}", "" if seconds is None else _time(seconds))
    return table


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.2f} h"


def _options(found: "Comparison") -> "Table":
    from rich.markup import escape

    table = _table("option that differs", *(run.name for run in found.runs))
    for key, values in found.options.items():
        table.add_row(
            escape(key), *(escape(value if len(value) <= LONGEST else f"{value[: LONGEST - 2]} …") for value in values)
        )
    if not found.options:
        table.add_row("none", *("" for _ in found.runs))
    return table


def _metrics(found: "Comparison", split: "Split", confidence: float, width: int) -> "Table":
    from rich.markup import escape

    runs = found.runs
    title = f"{split.name}: {split.samples:,} samples, in {split.clusters:,} groups that share images"
    others = [column for run in runs[1:] for column in (run.name, f"{run.name} − {runs[0].name}")]
    table = _table("metric", runs[0].name, *others, title=title)
    hidden = _hidden(split, len(runs))
    for name, metric in split.metrics.items():
        if name in hidden:
            continue
        cells = [_estimate(name, metric.values[0])]
        for run in range(1, len(runs)):
            apart = " *" if metric.is_told_apart(run) else ""
            cells += [_estimate(name, metric.values[run]), _estimate(name, metric.differences[run - 1], "+")]
            cells[-1] = cells[-1].replace("\n", f"{apart}\n", 1) if apart else cells[-1]
        shown = name if width >= WIDE else name.replace("[", "\n[", 1)  # so that a narrow terminal breaks no word
        table.add_row(escape(shown), *map(escape, cells))
    notes = [f"[…, …]: {100 * confidence:g} % of a bootstrap by image, paired by sample. *: the difference is not 0 by it"]
    if hidden:
        notes.append(f"{len(hidden)} kinds of samples on which the runs are not told apart are left out (format=json has all)")
    if same := [name for name in split.same if "[" not in name]:
        notes.append(f"the same in all runs: {', '.join(same)}")
    if kinds := [name for name in split.same if "[" in name]:
        notes.append(f"{len(kinds)} kinds of samples on which all runs are the same are left out")
    table.caption = escape("\n".join([*notes, *(f"note: {remark}" for remark in split.remarks)]))
    table.caption_justify = "left"
    return table


def _hidden(split: "Split", runs: int) -> set[str]:
    kinds = [name for name in split.metrics if "[" in name]
    plain = {name for name in kinds if not any(split.metrics[name].is_told_apart(run) for run in range(1, runs))}
    return plain if len(kinds) > KINDS_APART else set()


def _pair(found: "Comparison", split: "Split", pair: "Pair") -> list[str]:
    first, other = found.runs[0].name, found.runs[pair.run].name
    lines = [
        f"{split.name}, {first} and {other}: {first} is better on {pair.first_is_better:,} samples, {other} on "
        f"{pair.other_is_better:,}, as good on {pair.equal:,}; the same prediction on {pair.same_prediction:,}"
    ]
    for example in pair.examples:
        better = first if example.scores[0] > example.scores[1] else other
        lines += [
            f"  {better} is better on {example.sample}: {_line(example.text)}",
            f"    true: {_line(example.truth)}   {first}: {_line(example.predictions[0])}   {other}: "
            f"{_line(example.predictions[1])}",
        ]
    return [*lines, ""]


def _results(found: "Comparison") -> "Table | None":
    """Metrics of results.json that no file of predictions has an interval for."""
    known = {f"{split.name}/{name}" for split in found.splits for name in (*split.metrics, *split.same)}
    table, runs = _table("results.json, without intervals", *(run.name for run in found.runs)), len(found.runs)
    for key, values in found.results.items():
        prefix, _, metric = key.rpartition("/") if "[" not in key else ("", "", "")
        name = f"{prefix.replace('/', '_')}/{metric}"
        if key != "training_seconds" and metric and name not in known and len(set(values)) > 1:
            table.add_row(key, *("–" if value is None else f"{value:,.4f}" for value in values))
    return table if runs and table.row_count else None


def _estimate(metric: str, estimate: "Estimate", sign: str = "") -> str:
    is_rank = metric.endswith("_rank")
    scale, digits = (1, 1) if is_rank else (100, 2)

    def number(value: float) -> str:
        return "–" if math.isnan(value) else f"{scale * value:{sign}.{digits}f}"

    unit = "" if is_rank else " %"
    interval = "" if math.isnan(estimate.low) else f"\n[{number(estimate.low)}, {number(estimate.high)}]"
    return f"{number(estimate.value)}{unit}{interval}"


def _line(text: str | None) -> str:
    found = " ".join(str(text).split())
    return found if len(found) <= 2 * LONGEST else f"{found[: 2 * LONGEST - 2]} …"


def _table(*columns: str, title: str | None = None) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=None if title is None else escape(title), show_edge=False, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(escape(column), overflow="fold", justify="left" if place == 0 else "right")
    return table
