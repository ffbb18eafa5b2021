"""`pixelbert-data make|new|download|check|calibrate key=value`: what is done with data apart from training."""

import sys
from pathlib import Path
from typing import Literal

from pixelbert_plugin.commands.command import Parser, run_command, split_config, tell
from pixelbert_plugin.errors import UserError, replacing, writing

EPILOG = """\
examples:
  pixelbert-data new table=my.csv images=photos out=my.yaml
  pixelbert-data download vqa2 data_dir=/data
  pixelbert-data make out=data/mini
  pixelbert-data make out=data/mini seed=2 coco_train_images=500 overwrite=true
  pixelbert-data check config=projects/pixelbert/configs/vqa2.yaml env.data_dir=/data
  pixelbert-data check config=projects/pixelbert/configs/vqa2.yaml run_type=test dataset_config.vqa2.use.test=test-dev
  pixelbert-data check config=projects/pixelbert/configs/vqa2.yaml env.data_dir=/data images=all

  pixelbert-data calibrate config=my.yaml images=300 out=weights/R-50-calibrated.safetensors

new looks at a table of your own (CSV, TSV, JSON Lines, JSON, Parquet) and writes a configuration that trains on it
(docs/own-data.md): its task, columns, split, sizes and vocabulary are proposed, and can be given: task=retrieval
columns.question=Frage 'splits={train: a.csv, val: b.csv}' 'use={test: eval}' model=base.

download fetches the official files of coco, flickr30k, nlvr2, visual_genome, visual_genome_qa or vqa2 into data_dir=PATH
(data), goes on where it stopped, and says what has to be asked for. list=true shows them; only=[a.zip] fetches some.

check decodes one image of each split; with images=all every one, in parallel, listing those that cannot be read in
bad_images=PATH (bad_images.txt); with images=none none.

calibrate gives the norms of the image encoder's weights, where they are a scale and a shift alone (docs/weights.md), the
statistics of images=N training images (300), so that they can be trained.

exit status: 0 done, 2 wrong input or something is missing, 130 interrupted"""


def parser() -> Parser:
    parser = Parser(
        "pixelbert-data",
        "Data for Pixel-BERT: `new` makes a configuration of a table of your own; `download` fetches official data sets; "
        "`make` draws a miniature world with known truth in the five official formats; `check` looks whether a folder holds "
        "all that a configuration needs; `calibrate` measures a CNN's norms on images.",
        EPILOG,
    )
    parser.add_argument(
        "command",
        choices=COMMANDS,
        help="new: table=FILE out=FILE; download: NAME; make: out=PATH; check: config=PATH; calibrate: config=PATH out=FILE",
    )
    parser.add_common("options of the command, such as out=PATH seed=1")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(
        parser(), argv, lambda arguments: COMMANDS[arguments.command](arguments.options), "the same command starts anew"
    )


def make(options: list[str]) -> int:
    """Write a miniature world and print its counts and baselines."""
    from pixelbert_plugin.config.files import command_line
    from pixelbert_plugin.miniature.options import WorldConfig
    from pixelbert_plugin.miniature.world import describe, write_world
    from pixelbert_plugin.registry.schema import merge

    tell(describe(write_world(merge(WorldConfig, command_line(options)))))
    return 0


def new(options: list[str]) -> int:
    """Look at a table, and write a configuration that trains on it."""
    from pixelbert_plugin.commands.new_table import new
    from pixelbert_plugin.commands.table_look import NewConfig
    from pixelbert_plugin.config.files import command_line
    from pixelbert_plugin.registry import plugins
    from pixelbert_plugin.registry.schema import merge

    plugins.load()
    tell(new(merge(NewConfig, command_line(options))))
    return 0


def download(options: list[str]) -> int:
    """Fetch the official files of a data set."""
    from pixelbert_plugin.commands.download import DownloadConfig, download
    from pixelbert_plugin.config.files import command_line
    from pixelbert_plugin.registry.schema import merge

    names = [option for option in options if "=" not in option]
    if len(names) != 1:
        raise UserError(f"download takes the name of one data set, such as vqa2, not {' '.join(names) or 'none'}")
    tell(download(names[0], merge(DownloadConfig, command_line([option for option in options if option not in names]))))
    return 0


def check(options: list[str]) -> int:
    """Print what the splits of `run_type` need and what is there of it. 2 where something is missing or differs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pixelbert_plugin import config as configuration
    from pixelbert_plugin import registry
    from pixelbert_plugin.data.check import CheckRow, check
    from pixelbert_plugin.data.decode_all import DecodedImages
    from pixelbert_plugin.data.run_data import build_builders
    from pixelbert_plugin.data.vocabularies import answer_splits, build_processor, vocabularies

    own, options = _own_options(options, images="sample", bad_images="bad_images.txt")
    if own["images"] not in IMAGES:
        raise UserError(f"images={own['images']!r}: no such way to check images (known: {', '.join(IMAGES)})")
    path, overrides = split_config(options, "name the configuration whose data is to be checked")
    config = configuration.resolve(path, overrides)
    with configuration.naming_sources(config.sources):
        image = build_processor(config.processors, "image")
        builders = build_builders(config.datasets, config.dataset_config, config.env)
        roles, splits = registry.get("task", config.task, "task").processors, config.splits()
        found, reasons = vocabularies(config.processors, roles, builders, "train" in splits)
        how: DecodedImages | Literal["none", "sample"] = "none" if own["images"] == "none" else "sample"
        if own["images"] == "all":
            how = DecodedImages(image, Console(stderr=True))
        if "answers" in roles and "train" in splits:
            splits += [split for split in answer_splits(config.processors) if split not in splits]
        rows = check(builders, splits, image, found.get("text"), found.get("answers"), how)
    for role, reason in reasons.items():  # a tokenizer of the hub may be there where the run is
        rows.append(CheckRow("", "", f"processors.{role}", "warning" if role == "text" else "broken", reason))
    table = Table("data set", "split", title=escape(f"{config.env.data_dir}, run_type={config.run_type}"))
    for name in ("what", "status", "found"):
        table.add_column(name, overflow="fold")  # a path is worth nothing cut short
    for row in rows:
        color = {"ok": "green", "warning": "yellow"}.get(row.status, "red")
        what = row.what.removeprefix(f"{config.env.data_dir}/")
        table.add_row(row.dataset, escape(row.split), escape(what), f"[{color}]{row.status}[/{color}]", escape(row.detail))
    console = Console()
    with console.capture() as shown:
        console.print(table)
    tell(shown.get().rstrip("\n"))
    if isinstance(how, DecodedImages) and how.bad:
        target = Path(own["bad_images"]).expanduser()
        with writing(target, "bad_images"), replacing(target) as aside:
            aside.write_text("".join(f"{path}\t{reason}\n" for path, reason in how.bad.items()), encoding="utf-8")
        tell(f"images that cannot be read: {len(how.bad):,}, listed with the reasons in {own['bad_images']}")
    wrong, warnings = sum(row.status not in ("ok", "warning") for row in rows), sum(row.status == "warning" for row in rows)
    told = f", {warnings} with a warning" if warnings else ""
    tell(f"{wrong} of {len(rows)} checks failed{told}" if wrong else f"all {len(rows)} checks passed{told}")
    return 2 if wrong else 0


def calibrate(options: list[str]) -> int:
    """Write a CNN's weights with the statistics that its norms lack."""
    from pixelbert_plugin import config as configuration
    from pixelbert_plugin.commands.calibrate import CalibrationConfig, calibrate
    from pixelbert_plugin.config.files import command_line
    from pixelbert_plugin.registry.schema import merge

    own = [option for option in options if option.partition("=")[0] in ("out", "images")]
    path, overrides = split_config(
        [option for option in options if option not in own], "name the configuration whose image encoder is to be measured"
    )
    tell(calibrate(configuration.resolve(path, overrides), merge(CalibrationConfig, command_line(own))))
    return 0


def _own_options(options: list[str], **defaults: str) -> tuple[dict[str, str], list[str]]:
    """The command's own `key=value` arguments, and the others, which are the configuration's."""
    own, others = dict(defaults), []
    for option in options:
        key, equals, value = option.partition("=")
        if equals and key in own:
            own[key] = value
        else:
            others.append(option)
    return own, others


IMAGES = ("none", "sample", "all")
COMMANDS = {"make": make, "new": new, "download": download, "check": check, "calibrate": calibrate}

if __name__ == "__main__":
    sys.exit(main())
