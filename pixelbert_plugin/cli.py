"""`pixelbert-run`: arguments → configuration → run. Heavy packages are imported only once there is something to run."""

import argparse
import logging
import os
from pathlib import Path

from pixelbert_plugin.arguments import parser
from pixelbert_plugin.command import exit_status, split_config


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch: DDP warns of what parallel.py asks it for
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("pixelbert_plugin").setLevel(logging.DEBUG if arguments.debug else logging.INFO)
    return exit_status(lambda: _main(arguments), arguments.debug, "checkpoint.resume=true goes on from the last checkpoint")


def _main(arguments: argparse.Namespace) -> int:
    from pixelbert_plugin import config as configuration
    from pixelbert_plugin import describe, plugins

    needs_none = any((arguments.list, arguments.describe, arguments.new_plugin))
    path, overrides = split_config(arguments.options, "name one file, which may include others (--help)", needs_none)
    config = None if path is None else configuration.load(path, overrides)
    if config is None:  # --list and --describe work without a configuration; env.user_dir may be given alone
        plugins.load(**describe.plugin_options(overrides))
    else:
        plugins.load(config.env.user_dir, config.plugins)
        configuration.complete(config)

    if arguments.list:
        print(describe.components())
    elif arguments.describe:
        print(describe.options(arguments.describe))
    elif arguments.new_plugin:
        from pixelbert_plugin.new_plugin import write

        print(write(arguments.new_plugin))
    elif arguments.print_config:
        print(configuration.to_annotated_yaml(config))
    else:
        from rich.console import Console

        from pixelbert_plugin.run import export, run
        from pixelbert_plugin.schema import ConfigError

        try:
            if arguments.export:
                print(export(config, Path(arguments.export)))
            else:
                run(config, Console())
        except ConfigError as error:
            raise configuration.with_source(error, config.sources) from error
    return 0
