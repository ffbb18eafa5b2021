"""Sweeps: which cells there are, what each runs with, and the table of what is done."""

import json
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from pixelbert_plugin import sweep_cli
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.sweep import cells, plan, table

SWEEP = {
    "title": "Parts",
    "seeds": [1, 2],
    "overrides": ["training.num_workers=0"],
    "stages": {
        "pretrain": {"config": "run.yaml", "seeds": [7]},
        "vqa2": {"config": "run.yaml", "after": "pretrain", "metric": "test/vqa2/accuracy", "title": "VQA"},
    },
    "rows": {
        "full": {},
        "without MLM": {"overrides": {"pretrain": ["task_config.pretrain.mlm=false"], "all": ["training.batch_size=8"]}},
        "from scratch": {"skip": ["pretrain"]},
    },
}


DONE = {"test/vqa2/accuracy": 0.5}


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "run.yaml").write_text("datasets: [vqa2]\n")
    (tmp_path / "parts.yaml").write_text(yaml.safe_dump({**SWEEP, "save_dir": str(tmp_path / "save")}))
    return plan.load(tmp_path / "parts.yaml", {**SWEEP, "save_dir": str(tmp_path / "save")})


def finish(cell, **results):
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "results.json").write_text(json.dumps(results))


class Ended:
    """A process that has ended well."""

    returncode = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def folder_of(command):
    return Path(next(argument for argument in command if argument.startswith("env.save_dir=")).split("=", 1)[1])


def test_cells_are_rows_by_stages_by_seeds(sweep, tmp_path):
    found = plan.cells(sweep)
    assert [(cell.row, cell.stage, cell.seed) for cell in found] == [
        ("full", "pretrain", 7),
        ("full", "vqa2", 1),
        ("full", "vqa2", 2),
        ("without MLM", "pretrain", 7),
        ("without MLM", "vqa2", 1),
        ("without MLM", "vqa2", 2),
        ("from scratch", "vqa2", 1),
        ("from scratch", "vqa2", 2),
    ]
    assert len({cell.folder for cell in found}) == 8
    config = f"config={tmp_path / 'run.yaml'}"
    folder = tmp_path / "save/without_MLM"
    assert found[3].arguments == (
        config,
        "training.num_workers=0",
        "training.batch_size=8",
        "task_config.pretrain.mlm=false",
        "training.seed=7",
        f"env.save_dir={folder}/pretrain/seed_7",
    )
    assert found[5].arguments[-1] == f"checkpoint.pretrained={folder}/pretrain/seed_7/checkpoints/best"
    assert found[6].needs is None and not any("pretrained" in argument for argument in found[6].arguments)


def test_table_has_mean_and_spread_and_says_what_was_not_run(sweep):
    found = plan.cells(sweep)
    finish(found[1], **{"test/vqa2/accuracy": 0.50})
    finish(found[2], **{"test/vqa2/accuracy": 0.60})
    finish(found[6], **{"test/vqa2/accuracy": 0.25})
    assert table.markdown(sweep).splitlines() == [
        "| | VQA |",
        "|---|---|",
        "| full | 55.0 ± 7.1 |",  # sample standard deviation of 50 and 60
        "| without MLM | not run |",
        "| from scratch | 25.0 (1 of 2 seeds) |",
    ]
    (found[1].folder / "evaluations.jsonl").write_text('{"update": 5, "val/vqa2/accuracy": 0.4}\n')
    assert cells.curve(found[1], "val/vqa2/accuracy") == [(5, 0.4)]
    report, picture = table.write(sweep)
    assert "# Parts" in report.read_text() and "<svg" in picture.read_text()


def test_a_rerun_runs_only_what_is_not_done(sweep, monkeypatch):
    commands = []

    def pretend(command, **_):
        commands.append(command)
        finish(SimpleNamespace(folder=folder_of(command)), **DONE)
        return Ended()

    monkeypatch.setattr(cells.subprocess, "Popen", pretend)
    pretrain, first = plan.cells(sweep)[:2]
    quiet = Console(quiet=True)
    assert not cells.run(first, quiet, 1, set()) and not commands  # its checkpoint is not there yet
    assert cells.run(pretrain, quiet, 1, set()) and cells.run(pretrain, quiet, 1, set())
    assert len(commands) == 1 and commands[0][1:3] == ["-m", "pixelbert_plugin"]
    assert commands[0][-1] == "checkpoint.resume=true"
    other = plan.Cell(pretrain.row, pretrain.stage, 7, pretrain.folder, (*pretrain.arguments, "training.seed=8"), None)
    with pytest.raises(UserError, match="holds a run of other options"):
        cells.run(other, quiet, 1, set())


def test_results_of_a_run_that_was_killed_before_its_test_are_not_the_end(sweep):
    pretrain, first = plan.cells(sweep)[:2]
    for cell in (pretrain, first):
        finish(cell, training_seconds=5, **{"val/vqa2/accuracy": 0.5})
    assert cells.results(pretrain) is not None  # no column asks for a metric of it
    assert cells.results(first) is None and table.values(sweep, "full", "vqa2") == []
    finish(first, **DONE)
    assert table.values(sweep, "full", "vqa2") == [0.5]


def test_two_jobs_run_side_by_side_and_after_what_they_need(sweep, monkeypatch):
    """Both pre-trainings begin before either ends; a fine-tuning begins when its own pre-training has ended."""
    both_began, events = threading.Barrier(2, timeout=20), []

    def pretend(command, env, **_):
        assert env["OMP_NUM_THREADS"]
        folder = folder_of(command)
        events.append(("begins", folder))
        if folder.parent.name == "pretrain":
            both_began.wait()
            (folder / "checkpoints/best").mkdir(parents=True)
        events.append(("ends", folder))
        finish(SimpleNamespace(folder=folder), **DONE)
        return Ended()

    monkeypatch.setattr(cells.subprocess, "Popen", pretend)
    found, told = plan.cells(sweep)[:6], []
    assert cells.run_all(found, 2, Console(quiet=True), lambda: told.append(1)) == 0
    assert len(told) == 6
    for cell in found:
        if cell.needs is not None:
            assert events.index(("ends", cell.needs.parent.parent)) < events.index(("begins", cell.folder))


def test_an_interruption_ends_the_cells_that_run(sweep, monkeypatch):
    popen, started = cells.subprocess.Popen, []

    def sleep(command, **options):
        is_short = "seed_1" in str(folder_of(command))
        if is_short:
            finish(SimpleNamespace(folder=folder_of(command)), **DONE)
        started.append(popen(["sleep", "0" if is_short else "600"], **options))
        return started[-1]

    def interrupt():
        while len(started) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(cells.subprocess, "Popen", sleep)
    with pytest.raises(KeyboardInterrupt):
        cells.run_all(plan.cells(sweep)[6:], 2, Console(quiet=True), interrupt)
    assert sorted(process.wait() for process in started) == [-signal.SIGTERM, 0]


def test_a_failed_cell_is_told_and_the_others_run(tmp_path, sweep, capsys):
    assert sweep_cli.main([f"config={tmp_path}/parts.yaml", "only=from scratch"]) == 1
    output = capsys.readouterr().out
    assert (
        output.count("failed with exit status 2: error: training.max_updates") == 2 and "| from scratch | not run |" in output
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["only=ful"], "only='ful': 'ful' is no row"),
        (["stages.vqa2.after=pretrian"], "stages.vqa2.after: 'pretrian' is no stage; did you mean pretrain?"),
        (["rows.full.skip=[vqa]"], "rows.full: 'vqa' is no stage; did you mean vqa2?"),
        (["stages.vqa2.config=none.yaml"], "none.yaml': no such file"),
        (["sedes=[1]"], "sedes: unknown key; did you mean seeds?"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, sweep, capsys, arguments, message):
    assert sweep_cli.main([f"config={tmp_path}/parts.yaml", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
