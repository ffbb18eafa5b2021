"""Sweeps: which cells there are, what each runs with, and the table of what is done."""

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from pixelbert_plugin.commands import sweep as sweep_cli
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.sweep import cells, plan, table
from pixelbert_plugin.system import linux

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


def test_a_row_may_have_seeds_of_its_own_and_each_starts_from_the_same_seed(tmp_path):
    (tmp_path / "run.yaml").write_text("datasets: [vqa2]\n")
    rows = {"full": {"seeds": {"pretrain": [2, 1]}}, "once": {"seeds": {"vqa2": [2]}}}
    found = plan.cells(plan.load(tmp_path / "parts.yaml", {**SWEEP, "rows": rows}))
    assert [(cell.row, cell.stage, cell.seed, cell.needs and cell.needs.parts[-3]) for cell in found] == [
        ("full", "pretrain", 2, None),
        ("full", "pretrain", 1, None),
        ("full", "vqa2", 1, "seed_1"),
        ("full", "vqa2", 2, "seed_2"),
        ("once", "pretrain", 7, None),
        ("once", "vqa2", 2, "seed_7"),
    ]


@pytest.mark.parametrize(
    "given, reason",
    [
        ({"vqa": [1]}, "rows.full: 'vqa' is no stage; did you mean vqa2? (known: pretrain, vqa2)"),
        ({"vqa2": [1, 1]}, "rows.full.seeds.vqa2: [1, 1]: a seed is duplicated"),
        ({"vqa2": []}, "rows.full.seeds.vqa2: names no seed; a stage that the row is without goes into its `skip`"),
    ],
)
def test_seeds_of_a_row_that_cannot_be(tmp_path, given, reason):
    (tmp_path / "run.yaml").write_text("datasets: [vqa2]\n")
    with pytest.raises(UserError) as error:
        plan.load(tmp_path / "parts.yaml", {**SWEEP, "rows": {"full": {"seeds": given}}})
    assert str(error.value) == reason


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
    assert not cells.run(first, quiet, 1, cells.Started()) and not commands  # its checkpoint is not there yet
    assert cells.run(pretrain, quiet, 1, cells.Started()) and cells.run(pretrain, quiet, 1, cells.Started())
    assert len(commands) == 1 and commands[0][1:3] == ["-m", "pixelbert_plugin"]
    assert commands[0][-1] == "checkpoint.resume=true"
    other = plan.Cell(pretrain.row, pretrain.stage, 7, pretrain.folder, (*pretrain.arguments, "training.seed=8"), None)
    with pytest.raises(UserError, match="holds a run of other options"):
        cells.run(other, quiet, 1, cells.Started())


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


# a cell that starts a process of its own, and takes a moment to save after SIGTERM
CELL = """
import os, signal, subprocess, sys, time
from pathlib import Path
from pixelbert_plugin.system import linux
linux.end_with_pipe(int(os.environ.pop(linux.PARENT_PIPE)))
folder = Path(next(argument[13:] for argument in sys.argv if argument.startswith("env.save_dir=")))
def save(*_):
    time.sleep(0.3)
    (folder / "saved").touch()
    os._exit(75)
signal.signal(signal.SIGTERM, save)
inner = subprocess.Popen(["sleep", "600"])
(folder / "pids.part").write_text(f"{os.getpid()} {inner.pid}")
(folder / "pids.part").rename(folder / "pids")
time.sleep(600)
"""
RUN = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process would ignore it
from pixelbert_plugin.system import linux
from pixelbert_plugin.commands import sweep as sweep_cli
from pixelbert_plugin.sweep import cells
popen = subprocess.Popen
def stand_in(command, **options):
    return popen([sys.executable, "-c", CELL, *command[3:]], **options)
cells.subprocess.Popen = stand_in
sys.exit(sweep_cli.main(sys.argv[1:]))
"""


def start_two_cells(tmp_path):
    """A sweep with two cells at work, and the numbers of the cells' processes and of those that they started."""
    arguments = [f"config={tmp_path}/parts.yaml", "only=from scratch", "jobs=2"]
    command = [sys.executable, "-c", f"CELL = {CELL!r}\n{RUN}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids, deadline = [], time.monotonic() + 60
    while len(pids) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        pids = list((tmp_path / "save").glob("*/*/*/pids"))
    return process, [int(pid) for file in pids for pid in file.read_text().split()]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_sweep_takes_its_cells_and_what_they_started_with_it(tmp_path, sweep):
    process, pids = start_two_cells(tmp_path)
    assert len(pids) == 4 and all(map(lives, pids))
    with pytest.raises(UserError, match=f"process {process.pid} on .* runs its cells now"), cells.alone(tmp_path / "save"):
        pass  # a second sweep there
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(lives, pids)) and not list(tmp_path.rglob("saved"))
    with cells.alone(tmp_path / "save"):
        pass  # the same command goes on


@pytest.mark.parametrize(("number", "status", "line"), [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "interrupted")])
def test_a_stopped_sweep_lets_its_cells_save(tmp_path, sweep, number, status, line):
    process, pids = start_two_cells(tmp_path)
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert process.returncode == status and not any(map(lives, pids[::2]))
    assert len(list(tmp_path.rglob("saved"))) == 2 and "failed" not in output
    assert line in error and "the same command goes on" in error and error.count("\n") == 1
    for pid in pids[1::2]:
        os.kill(pid, signal.SIGKILL)  # these cells left them behind; pixelbert-run does not


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_console_that_fails_ends_no_sweep(tmp_path, sweep, monkeypatch):
    monkeypatch.setattr(cells.subprocess, "Popen", lambda command, **_: finish_at_once(command))
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert sweep_cli.main([f"config={tmp_path}/parts.yaml", "only=from scratch"]) == 0
    assert table.values(sweep, "from scratch", "vqa2") == [0.5, 0.5]


def finish_at_once(command):
    finish(SimpleNamespace(folder=folder_of(command)), **DONE)
    return Ended()


def test_a_cell_is_told_whom_to_end_with(monkeypatch):
    seen = []
    monkeypatch.setenv(linux.PARENT_PIPE, "17")
    monkeypatch.setattr(linux, "end_with_pipe", seen.append)
    monkeypatch.setattr("pixelbert_plugin.commands.run.program", lambda: seen.append("run"))  # itself ends the interpreter
    runpy.run_module("pixelbert_plugin", run_name="__main__")
    assert seen == [17, "run"] and linux.PARENT_PIPE not in os.environ  # else what the run starts would end with it too


def test_a_folder_of_other_options_is_told_before_anything_runs(sweep, monkeypatch):
    monkeypatch.setattr(cells.subprocess, "Popen", lambda *_, **__: pytest.fail("a cell was started"))
    last = plan.cells(sweep)[-1]
    finish(last, **DONE)
    (last.folder / "cell.json").write_text("[1]")
    with pytest.raises(UserError, match=f"{last.folder}: holds a run of other options"):
        cells.run_all(plan.cells(sweep), 1, Console(quiet=True), lambda: None)


def test_a_killed_cell_and_one_without_room_are_told_and_the_others_run(sweep, monkeypatch, capsys):
    popen = subprocess.Popen

    def pretend(command, **options):
        folder = folder_of(command)
        if folder.parts[-3:-1] == ("full", "pretrain"):
            raise OSError(28, "No space left on device")
        if folder.parts[-3:-1] == ("without_MLM", "pretrain"):
            return popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], **options)
        finish(SimpleNamespace(folder=folder), **DONE)
        return Ended()

    monkeypatch.setattr(cells.subprocess, "Popen", pretend)
    assert cells.run_all(plan.cells(sweep), 1, Console(width=500), lambda: None) == 6
    output = capsys.readouterr().out
    assert "full/pretrain/seed_7: failed: " in output and "cannot be written (No space left on device)" in output
    assert "killed (SIGKILL: by hand, or because memory ran out): no output" in output
    assert output.count("waits for") == 4 and len(table.values(sweep, "from scratch", "vqa2")) == 2


def test_cores_are_those_that_the_process_may_use():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{one}; from pixelbert_plugin.system import linux; print(linux.num_cores())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


@pytest.mark.slow
def test_a_failed_cell_is_told_and_the_others_run(tmp_path, sweep, capsys):
    assert sweep_cli.main([f"config={tmp_path}/parts.yaml", "only=from scratch"]) == 1
    output = capsys.readouterr().out
    assert (
        output.count("failed with exit status 2: error: training.max_updates") == 2 and "| from scratch | not run |" in output
    )


@pytest.mark.parametrize(
    ("only", "chosen"), [("full", ["full"]), ("full, then more", ["full, then more"]), ("more,full", ["full", "more"])]
)
def test_the_rows_that_only_names(tmp_path, monkeypatch, capsys, only, chosen):
    (tmp_path / "run.yaml").write_text("datasets: [vqa2]\n")
    rows = {"full": {}, "full, then more": {}, "more": {}}
    sweep = {**SWEEP, "rows": rows, "save_dir": str(tmp_path / "save")}
    (tmp_path / "parts.yaml").write_text(yaml.safe_dump(sweep))
    ran = []
    monkeypatch.setattr(cells, "run_all", lambda given, *_: ran.extend(given) or 0)
    assert sweep_cli.main([f"config={tmp_path}/parts.yaml", f"only={only}"]) == 0
    assert sorted({cell.row for cell in ran}) == chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["only=ful"], "only='ful': 'ful' is no row"),
        (["stages.vqa2.after=pretrian"], "stages.vqa2.after: 'pretrian' is no stage; did you mean pretrain?"),
        (["rows.full.skip=[vqa]"], "rows.full: 'vqa' is no stage; did you mean vqa2? (known: pretrain, vqa2)"),
        (["stages.vqa2.config=none.yaml"], "none.yaml': no such file"),
        (["seeds=[1,2,1]"], "seeds: [1, 2, 1]: a seed is duplicated"),
        (["stages.pretrain.after=vqa2"], "stages.pretrain.after: 'vqa2' comes after itself"),
        (["rows.without_MLM.run=true"], "rows.without_MLM: would share the folder 'without_MLM' with 'without MLM'"),
        (["sedes=[1]"], "sedes: unknown key; did you mean seeds?"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, sweep, capsys, arguments, message):
    assert sweep_cli.main([f"config={tmp_path}/parts.yaml", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
