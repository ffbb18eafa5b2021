"""`pixelbert-run`: arguments → configuration → run. Heavy packages are imported only once there is something to run."""

import argparse
import logging
import os
import sys

from pixelbert_plugin import __version__
from pixelbert_plugin.errors import RunError, UserError

EPILOG = """\
examples:
  pixelbert-run config=projects/easy_vqa/configs/easy_vqa.yaml
  pixelbert-run config=projects/pixelbert/configs/vqa2.yaml env.data_dir=/data training.batch_size=64
  pixelbert-run config=save/vqa2/config.yaml checkpoint.resume=true
  pixelbert-run config=projects/pixelbert/configs/vqa2.yaml run_type=test
  pixelbert-run --describe pixelbert

exit status: 0 done, 2 wrong input, 3 the loss became NaN or infinite, 130 interrupted"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "pixelbert-run",
        description="Train and evaluate Pixel-BERT from one YAML file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "options",
        nargs="*",
        metavar="key=value",
        help="config=PATH, then any key of the configuration, such as training.batch_size=64",
    )
    parser.add_argument("--list", action="store_true", help="list every registered component with its origin")
    parser.add_argument("--describe", metavar="NAME", help="the options of a component (or of a section: training, env, …)")
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved configuration and where each value is from"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error, and more log lines")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("pixelbert_plugin").setLevel(logging.DEBUG if arguments.debug else logging.INFO)
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        print("interrupted; checkpoint.resume=true goes on from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of --list closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RunError as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status


def _main(arguments: argparse.Namespace) -> int:
    from pixelbert_plugin import config as configuration
    from pixelbert_plugin import describe, plugins

    paths = [option.removeprefix("config=") for option in arguments.options if option.startswith("config=")]
    overrides = [option for option in arguments.options if not option.startswith("config=")]
    if len(paths) > 1:
        raise UserError(f"config= is given {len(paths)} times; name one file, and let it include others")
    if not paths and not (arguments.list or arguments.describe):
        raise UserError("config=PATH is missing; for instance config=projects/easy_vqa/configs/easy_vqa.yaml (see --help)")
    config = configuration.load(paths[0], overrides) if paths else None
    if config is None:  # --list and --describe work without a configuration; env.user_dir may be given alone
        plugins.load(**describe.plugin_options(overrides))
    else:
        plugins.load(config.env.user_dir, config.plugins)
        configuration.complete(config)

    if arguments.list:
        print(describe.components())
    elif arguments.describe:
        print(describe.options(arguments.describe))
    elif arguments.print_config:
        print(configuration.to_annotated_yaml(config))
    else:
        from rich.console import Console

        from pixelbert_plugin.run import run

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']}: this version trains in one process; run without torchrun")
        run(config, Console())
    return 0
