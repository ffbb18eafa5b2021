"""`pixelbert-run`: arguments → configuration → run. Heavy packages are imported only once there is something to run."""

import argparse
import logging

from pixelbert_plugin.arguments import parser
from pixelbert_plugin.command import exit_status
from pixelbert_plugin.errors import UserError


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("pixelbert_plugin").setLevel(logging.DEBUG if arguments.debug else logging.INFO)
    return exit_status(lambda: _main(arguments), arguments.debug, "checkpoint.resume=true goes on from the last checkpoint")


def _main(arguments: argparse.Namespace) -> int:
    from pixelbert_plugin import config as configuration
    from pixelbert_plugin import describe, plugins

    paths = [option.removeprefix("config=") for option in arguments.options if option.startswith("config=")]
    overrides = [option for option in arguments.options if not option.startswith("config=")]
    if len(paths) > 1 or not (paths or arguments.list or arguments.describe):
        raise UserError(f"config=PATH is given {len(paths)} times; name one file, which may include others (--help)")
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
        from pixelbert_plugin.schema import ConfigError

        try:
            run(config, Console())
        except ConfigError as error:
            raise configuration.with_source(error, config.sources) from error
    return 0
