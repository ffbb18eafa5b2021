"""The results of a run as tables for a terminal."""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table


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
            former = ""
            for kind, row in rows.items():
                group, equals, member = kind.partition("=")
                if equals and group != former:  # its kinds stand below it, so that each fits its line
                    table.add_row(escape(group))
                former, shown = group, f"  {member}" if equals else kind
                table.add_row(escape(shown), *(_shown(name, row[name]) if name in row else "" for name in columns))
        yield table


def _shown(name: str, value: float) -> str:
    if name == "loss" or name.startswith("loss_"):
        return f"{value:.4f}"
    if name.startswith("num_"):
        return f"{int(value)}"
    return f"{value:.1f}" if name.endswith("_rank") else f"{100 * value:.2f} %"
