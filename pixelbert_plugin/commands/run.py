"""`pixelbert-run`: arguments → configuration → run. Heavy packages are imported only once there is something to run."""

import argparse
import logging
import os
from pathlib import Path

from pixelbert_plugin.commands.arguments import parser
from pixelbert_plugin.commands.command import leave, run_command, split_config, split_optional_config, tell
from pixelbert_plugin.errors import UserError


def main(argv: list[str] | None = None) -> int:
    return run_command(parser(), argv, _main, "checkpoint.resume=true goes on from the last checkpoint")


def program() -> None:
    leave(main())


def _main(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch: DDP warns of what parallel.py asks it for
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("pixelbert_plugin").setLevel(logging.DEBUG if arguments.debug else logging.INFO)

    from pixelbert_plugin import config as configuration
    from pixelbert_plugin.config import describe, shipped
    from pixelbert_plugin.registry import plugins

    if arguments.format is not None and arguments.export is None:
        raise UserError(f"--format {arguments.format}: is of --export PATH, which is not given")
    if arguments.dtype is not None and (arguments.export is None or arguments.format not in (None, "safetensors")):
        raise UserError(f"--dtype {arguments.dtype}: is of --export FILE.safetensors, which is not given")
    if arguments.compare is not None:
        from pixelbert_plugin.commands.compare import compare

        tell(compare(arguments.compare, arguments.options))
        return 0
    if arguments.copy_config is not None:
        if arguments.options:
            raise UserError(f"{arguments.options[0]!r}: --copy-config takes NAME alone; options are for the run of the copy")
        tell(shipped.copy(arguments.copy_config))
        return 0
    needs_none = arguments.list or arguments.describe is not None or arguments.new_plugin is not None
    split = split_optional_config if needs_none else split_config
    path, overrides = split(arguments.options, "name one file, which may include others (--help)")
    config = None if path is None else configuration.resolve(path, overrides)
    if config is None:  # --list and --describe work without a configuration; env.user_dir may be given alone
        plugins.load(**describe.plugin_options(overrides))

    if arguments.list:
        tell(f"{describe.components()}\n{shipped.listing()}")
    elif arguments.describe is not None:
        tell(describe.options(arguments.describe))
    elif arguments.new_plugin is not None:
        from pixelbert_plugin.commands.new_plugin import write

        tell(write(arguments.new_plugin))
    elif config is not None and arguments.print_config:
        tell(configuration.to_annotated_yaml(config))
    elif config is not None:
        from rich.console import Console

        from pixelbert_plugin.run import export, export_encoders, train_and_evaluate

        if arguments.export is not None:
            form, dtype = arguments.format or "safetensors", arguments.dtype or "fp32"
            tell(str(export(config, Path(arguments.export).expanduser(), form, dtype)))
        elif arguments.export_encoders is not None:
            written = export_encoders(config, Path(arguments.export_encoders).expanduser())
            tell("\n".join(f"{part}: {told}" for part, told in written.items()))
        elif arguments.dry_run:
            from pixelbert_plugin.dry_run import dry_run

            with configuration.naming_sources(config.sources):
                dry_run(config, Console())
        else:
            with configuration.naming_sources(config.sources):
                train_and_evaluate(config, Console())
    return 0
