"""`pixelbert-sweep`: run every cell of a sweep's file that is not done yet, then write its table and picture."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pixelbert_plugin.commands.command import Parser, run_command, split_config, tell
from pixelbert_plugin.errors import Stopped, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from pixelbert_plugin.sweep.plan import SweepConfig

EPILOG = """\
examples:
  pixelbert-sweep config=projects/pixelbert/ablations.yaml
  pixelbert-sweep config=projects/pixelbert/ablations.yaml only='full,without MLM' seeds=[1] jobs=2
  pixelbert-sweep config=projects/pixelbert/ablations.yaml --table

Ctrl-C and SIGTERM let the running cells save; a kill -9 ends them too, and costs at most the updates since their last
checkpoints. The same command goes on: each cell that is not done, from its checkpoint.
exit status: 0 every cell is done, 1 some failed, 2 wrong input, 75 stopped by SIGTERM, 130 interrupted"""


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        "pixelbert-sweep",
        "Run a table of experiments: rows × stages × seeds, cell by cell.",
        EPILOG,
    )
    parser.add_common("config=PATH, only=ROW,ROW, any key of the sweep's file")
    parser.add_argument("--table", action="store_true", help="write table and picture of what is done, and run nothing")
    signal.signal(signal.SIGTERM, _stop)
    return run_command(parser, argv, _main, "the same command goes on")


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped("stopped by SIGTERM; the same command goes on")


def _show_so_far(sweep: "SweepConfig", console: "Console") -> None:
    """The table of what is done. One that cannot be written yet is no reason to stop the cells."""
    from pixelbert_plugin.sweep import table

    try:
        table.write(sweep)
    except UserError as error:
        console.out(f"{error}", highlight=False)


def _main(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from pixelbert_plugin import config as configuration
    from pixelbert_plugin.sweep import cells, plan, table
    from pixelbert_plugin.system.console import make_tolerant

    file, options = split_config(arguments.options, "name a sweep's YAML (--help)")
    only = next((option.partition("=")[2] for option in options if option.startswith("only=")), None)
    path = configuration.find(file)
    values, sources = configuration.read(path, [option for option in options if not option.startswith("only=")])
    with configuration.naming_sources(sources):
        sweep, console = plan.load(path, values), Console()
    make_tolerant(console)
    if only is None:
        wanted = [name for name, row in sweep.rows.items() if row.run]
    else:  # a row's name may have a comma, where it is the only one
        wanted = [only] if only in sweep.rows else [name.strip() for name in only.split(",")]
    for name in wanted:
        if name not in sweep.rows:
            raise UserError(f"only={only!r}: {name!r} is no row of {file} (known: {', '.join(sweep.rows)})")
    failed = 0
    if not arguments.table:
        chosen = [cell for cell in plan.cells(sweep) if cell.row in wanted]
        with cells.alone(Path(sweep.save_dir)):
            failed = cells.run_all(chosen, sweep.jobs, console, lambda: _show_so_far(sweep, console))
    report, picture = table.write(sweep)
    tell(Path(report).read_text(encoding="utf-8"))
    console.out(f"{report}  {picture}", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
