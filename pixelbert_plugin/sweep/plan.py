"""A sweep's file → the cells to run.

stages:
  pretrain: {config: mini/pretrain.yaml, seeds: [1]}
  vqa2: {config: mini/vqa2.yaml, after: pretrain, metric: test/vqa2/accuracy}
rows:
  full: {}
  without MLM: {overrides: {pretrain: [task_config.pretrain.mlm=false]}}
  from scratch: {skip: [pretrain]}
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_plugin import config as configuration
from pixelbert_plugin.config.interpolation import interpolated
from pixelbert_plugin.registry import schema
from pixelbert_plugin.registry.schema import ConfigError, FilePath, nearest, require


@dataclass(kw_only=True)
class Stage:
    config: FilePath = ""  # YAML of pixelbert-run, relative to the sweep's file
    after: str | None = None  # stage whose best checkpoint this one starts from
    metric: str | None = None  # key of results.json that the table shows. None: the stage is no column
    title: str = ""  # column heading. Empty: the metric
    seeds: list[int] | None = None  # instead of the sweep's


@dataclass(kw_only=True)
class TableRow:
    overrides: dict[str, list[str]] = field(default_factory=dict)  # key=value by stage; "all" for every stage
    seeds: dict[str, list[int]] = field(default_factory=dict)  # by stage, instead of the stage's
    skip: list[str] = field(default_factory=list)  # stages that this row is without
    run: bool = True  # false: the row is listed as not run until asked for with only=ROW (a backbone for a GPU, say)


@dataclass(kw_only=True)
class SweepConfig:
    title: str = "Sweep"  # of the table
    save_dir: FilePath = ""  # folder of all cells: save_dir/row/stage/seed_1. Empty: save/<the file's name>
    report: FilePath = ""  # Markdown to write, with a picture beside it. Empty: save_dir/results.md
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])  # of training, for every stage without its own
    overrides: list[str] = field(default_factory=list)  # key=value for every cell
    jobs: int = 1  # cells that run at the same time; they share the CPU's cores
    stages: dict[str, Stage] = field(default_factory=dict)  # in the order they run
    rows: dict[str, TableRow] = field(default_factory=dict)  # of the table

    def check(self) -> None:
        if not self.stages or not self.rows:
            raise ValueError(f"{'rows' if self.stages else 'stages'}: name at least one")
        if not self.seeds:
            raise ValueError("seeds: name at least one")
        require(self, "jobs", low=1)


@dataclass(frozen=True)
class Cell:
    """One run."""

    row: str
    stage: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]  # of pixelbert-run
    needs: Path | None  # the checkpoint it starts from
    metric: str | None = None  # that its results have once it has run to its end

    @property
    def checkpoint(self) -> Path:
        """What its run ends with, for others to start from."""
        return self.folder / "checkpoints/best"


def load(file: Path, values: dict[str, Any]) -> SweepConfig:
    """The sweep of a file's `values`, its own paths resolved. Raises ConfigError."""
    config = schema.merge(SweepConfig, interpolated(values, asdict(SweepConfig())))
    config.save_dir = config.save_dir or str(Path("save") / file.stem)
    config.report = config.report or str(Path(config.save_dir) / "results.md")
    for name, stage in config.stages.items():
        stage.config = str(file.parent / stage.config)
        configuration.find(stage.config)
        if stage.after is not None and stage.after not in config.stages:
            raise ConfigError(f"stages.{name}.after", f"{stage.after!r} is no stage{nearest(stage.after, list(config.stages))}")
    _refuse_shared_folders(config)
    for name, row in config.rows.items():
        for named in [*row.skip, *row.seeds, *(stage for stage in row.overrides if stage != "all")]:
            if named not in config.stages:
                raise ConfigError(f"rows.{name}", f"{named!r} is no stage{nearest(named, list(config.stages))}")
    return config


def _refuse_shared_folders(config: SweepConfig) -> None:
    """Every cell has a folder of its own below save_dir, and can begin some time. Raises ConfigError."""
    for name, stage in config.stages.items():
        if not name or Path(name).name != name:
            raise ConfigError(f"stages.{name}", "its name is a folder's too, so it must be a plain word")
        after = stage.after
        for _ in config.stages:
            after = config.stages[after].after if after is not None else None
        if after is not None:
            raise ConfigError(f"stages.{name}.after", f"{stage.after!r} comes after itself")
    given = {"seeds": config.seeds, **{f"stages.{name}.seeds": stage.seeds or [] for name, stage in config.stages.items()}}
    given |= {
        f"rows.{name}.seeds.{stage}": numbers for name, row in config.rows.items() for stage, numbers in row.seeds.items()
    }
    for key, numbers in given.items():
        if len(set(numbers)) < len(numbers):
            raise ConfigError(key, f"{numbers}: a seed is duplicated")
        if not numbers and key.startswith("rows."):
            raise ConfigError(key, "names no seed; a stage that the row is without goes into its `skip`")
    rows: dict[str, str] = {}
    for name in config.rows:
        other = rows.setdefault(_file_name(name), name)
        if other != name:
            raise ConfigError(f"rows.{name}", f"would share the folder {_file_name(name)!r} with {other!r}; rename one")


def cells(config: SweepConfig) -> list[Cell]:
    """Every cell, a row's in the order of the stages."""
    return [
        cell(config, row, stage, seed)
        for row in config.rows
        for stage in config.stages
        if stage not in config.rows[row].skip
        for seed in seeds(config, row, stage)
    ]


def cell(config: SweepConfig, row_name: str, stage_name: str, seed: int) -> Cell:
    stage, row = config.stages[stage_name], config.rows[row_name]
    folder = Path(config.save_dir) / _file_name(row_name) / stage_name / f"seed_{seed}"
    arguments = [f"config={stage.config}", *config.overrides, *row.overrides.get("all", []), *row.overrides.get(stage_name, [])]
    arguments += [f"training.seed={seed}", f"env.save_dir={folder}"]
    needs = None
    if stage.after is not None and stage.after not in row.skip:
        known = seeds(config, row_name, stage.after)
        needs = cell(config, row_name, stage.after, seed if seed in known else known[0]).checkpoint
        arguments.append(f"checkpoint.pretrained={needs}")
    return Cell(row_name, stage_name, seed, folder, tuple(arguments), needs, stage.metric)


def seeds(config: SweepConfig, row: str, stage: str) -> list[int]:
    """Of a row's cells at a stage; where a stage that comes after has the same seed, it starts from that cell, else from the
    first."""
    return config.rows[row].seeds.get(stage) or config.stages[stage].seeds or config.seeds


def _file_name(row: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in row)
