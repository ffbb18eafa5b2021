"""`python -m pixelbert_plugin.mmf`: our configuration and MMF's options → MMF's configuration → MMF's trainer."""

import argparse
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from pixelbert_plugin.commands.command import Parser, run_command, split_config, tell
from pixelbert_plugin.errors import writing

EPILOG = """\
examples:
  python -m pixelbert_plugin.mmf config=projects/pixelbert/configs/vqa2.yaml dataset=vqa2 run_type=train_val
  python -m pixelbert_plugin.mmf config=projects/pixelbert/configs/nlvr2.yaml training.tensorboard=true
  python -m pixelbert_plugin.mmf --print-config config=projects/pixelbert/configs/vqa2.yaml > mmf.yaml

A YAML of pixelbert-run is translated: see docs/mmf.md. Keys that only MMF has are handed on to it. MMF has data sets named
vqa2, nlvr2, coco and visual_genome too: such a name means ours, which MMF knows as pixelbert_vqa2, and so on; with
--mmf-builders it means MMF's own."""


def parser() -> Parser:
    parser = Parser(
        "python -m pixelbert_plugin.mmf",
        "Train and evaluate our models on our data sets with the trainer of facebookresearch/mmf.",
        EPILOG,
    )
    parser.add_common("config=PATH, then keys of pixelbert-run or of MMF")
    parser.add_argument("--mmf-builders", action="store_true", help="hand everything to MMF as it is: vqa2 is MMF's own")
    parser.add_argument("--print-config", action="store_true", help="print MMF's configuration, made of ours, and stop")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(parser(), argv, _main, "checkpoint.resume=true goes on from MMF's current.ckpt")


def _main(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("pixelbert_plugin").setLevel(logging.DEBUG if arguments.debug else logging.INFO)

    from pixelbert_plugin.mmf.compat import import_mmf
    from pixelbert_plugin.mmf.devices import take_own_gpu

    take_own_gpu()
    import_mmf()
    if arguments.mmf_builders:
        from pixelbert_plugin.mmf.register import register_all

        register_all()
        options = arguments.options
    else:
        values, save_dir = make_config(arguments.options)
        if arguments.print_config:
            tell(_yaml(values).rstrip("\n"))
            return 0
        options = _write(values, Path(save_dir))
    from mmf_cli.run import run

    run(options)
    return 0


def make_config(options: list[str]) -> tuple[dict[str, Any], str]:
    """MMF's configuration from `config=PATH` and the other options; and the run's folder. Raises UserError."""
    from mmf.utils.configuration import get_default_config_path

    from pixelbert_plugin import config as configuration
    from pixelbert_plugin.mmf import devices, translate
    from pixelbert_plugin.mmf.defaults import shipped
    from pixelbert_plugin.mmf.register import register_all
    from pixelbert_plugin.registry import yaml_text

    path, overrides = split_config(options, "name one YAML file (--help)")
    file = configuration.find(path)
    overrides = [re.sub("^dataset=", "datasets=", option) for option in overrides]  # MMF's short form
    values, sources = configuration.read(file, overrides)
    values = yaml_text.unfolded(values)
    mmfs = translate.take_mmfs(values, configuration.read_values(Path(get_default_config_path()), []))
    for name in values.get("datasets") or []:
        values = translate.merged(shipped(name), values)
    config = configuration.typed(file, values, sources)
    register_all(config.env.user_dir, config.plugins)
    configuration.complete(config)
    save_dir = config.env.save_dir or f"save/{file.stem}"
    translate.refuse_ours(save_dir)
    devices.prepare(config)
    with configuration.naming_sources(sources):
        made = translate.to_mmf(config)
    return translate.merged(made, mmfs), save_dir


def _write(values: dict[str, Any], save_dir: Path) -> list[str]:
    """Write MMF's configuration into the run's folder. Returns the options that MMF asks for beside it."""
    path = save_dir / "mmf.yaml"
    with writing(path):
        save_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(_yaml(values), encoding="utf-8")
    print(f"MMF's configuration: {path}", file=sys.stderr)
    given = {"config": path, "model": values["model"], "datasets": values["datasets"], "run_type": values["run_type"]}
    return [f"{key}={value}" for key, value in given.items()] + [f"env.save_dir={os.fspath(save_dir)}"]


def _yaml(values: dict[str, Any]) -> str:
    from pixelbert_plugin.registry import yaml_text

    return yaml_text.dump(values)
