"""`pixelbert-data make|check key=value`: make a miniature world, or check a folder of official files."""

import argparse
import sys
import traceback
from typing import Any

from pixelbert_plugin import __version__
from pixelbert_plugin.errors import RunError, UserError

EPILOG = """\
examples:
  pixelbert-data make out=data/mini
  pixelbert-data make out=data/mini seed=2 coco_train_images=500 overwrite=true

exit status: 0 done, 2 wrong input, 130 interrupted"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "pixelbert-data",
        description="Data for Pixel-BERT: `make` draws a miniature world with known truth in the five official formats.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help="make: write a miniature world to out=PATH")
    parser.add_argument("options", nargs="*", metavar="key=value", help="options of the command, such as out=PATH seed=1")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        COMMANDS[arguments.command](arguments.options)
    except KeyboardInterrupt:
        print("interrupted; the same command starts anew", file=sys.stderr)
        return 130
    except RunError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def make(options: list[str]) -> None:
    """Write a miniature world and print its counts and baselines."""
    from pixelbert_plugin.miniature.options import WorldConfig
    from pixelbert_plugin.miniature.world import describe, write_world
    from pixelbert_plugin.schema import merge

    print(describe(write_world(merge(WorldConfig, values(options)))))


def values(options: list[str]) -> dict[str, Any]:
    """The `key=value` arguments as a mapping, values read as YAML. Raises UserError for anything else."""
    import yaml

    found = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise UserError(f"{option!r}: not of the form key=value")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{option!r}: the value is not YAML; quote it") from error
    return found


COMMANDS = {"make": make}

if __name__ == "__main__":
    sys.exit(main())
