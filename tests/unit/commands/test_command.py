"""The command lines as somebody types them: any order, near misses, hostile values; always one line and exit status 2."""

import io
import os
import random
import subprocess
import sys
import tempfile

import pytest
from conftest import ROOT

from pixelbert_plugin.commands import command
from pixelbert_plugin.commands import data as data_cli
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.commands import sweep as sweep_cli
from pixelbert_plugin.errors import UserError

CONFIG = "config=projects/pixelbert/configs/vqa2.yaml"


@pytest.fixture
def fails(capsys, monkeypatch):
    """Run a command in the repository, expect status 2 and one line on stderr; the line."""
    monkeypatch.chdir(ROOT)

    def run(*arguments: str, main=cli.main) -> str:
        assert main(list(arguments)) == 2
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].isprintable(), captured.err
        return lines[0].removeprefix("error: ")

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("--print-config", CONFIG, "training.seed=3"),
        (CONFIG, "--print-config", "training.seed=3"),
        ("training.seed=3", "--print-config", "--debug", CONFIG),
        (CONFIG, "training.seed=3", "--print-config"),
    ],
)
def test_flags_and_options_come_in_any_order(arguments, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(list(arguments)) == 0
    assert "seed: 3" in capsys.readouterr().out


def test_options_after_a_flag_of_the_other_commands(tmp_path, fails):
    assert fails("make", "--debug=x", main=data_cli.main).startswith("argument --debug")
    assert "no such file" in fails("check", "config=none.yaml", "env.data_dir=/x", main=data_cli.main)
    assert "'x' is no row" in fails("config=projects/pixelbert/ablations.yaml", "--table", "only=x", main=sweep_cli.main)
    assert "holds no checkpoint" in fails("--export", "x.safetensors", CONFIG, f"env.save_dir={tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my.yaml"], "'my.yaml': not understood; did you mean config=my.yaml?"),
        (["README.md"], "did you mean config=README.md?"),
        (["config", "my.yaml"], "did you mean config=my.yaml?"),
        (["--config", "my.yaml"], "--config: unknown flag; write config=PATH"),
        (["--config=my.yaml"], "write config=my.yaml"),
        ([CONFIG, "--training.batch_size=3"], "keys are written without dashes: training.batch_size=3"),
        ([CONFIG, "--prnt-config"], "did you mean --print-config?"),
        ([CONFIG, "--foo"], "--foo: unknown flag"),
        ([CONFIG, "training.seed", "3"], "did you mean training.seed=3?"),
        ([CONFIG, "batch_size=3"], "batch_size: unknown key; did you mean evaluation.batch_size or training.batch_size?"),
        ([CONFIG, "lr=3"], "did you mean optimizer.cnn.params.lr or optimizer.transformer.params.lr?"),
        ([CONFIG, "training.lr=3"], "did you mean optimizer.cnn.params.lr or optimizer.transformer.params.lr?"),
        ([CONFIG, "color_jitter=0.1"], "did you mean processors.image.params.color_jitter?"),
        ([CONFIG, "training.gamma=0.5"], "did you mean scheduler.params.gamma?"),
        ([CONFIG, "model_config.pooler=true"], "did you mean model_config.pixelbert.pooler?"),
        ([CONFIG, "model_config.num_sampled_pixels=3"], "did you mean model_config.pixelbert.num_sampled_pixels?"),
        ([CONFIG, "a..b=3"], "'a..b=3': not understood; options are given as key=value"),
        (["--list", "--describe", "x"], "argument --describe: not allowed with argument --list"),
        (["--describe"], "--describe: name a component or a section (known: adamw,"),
        (["--describe", ""], "--describe: name a component or a section"),
        (["--new-plugin", ""], "--new-plugin '': must be a Python name"),
        ([CONFIG, "--export"], "argument --export: expected one argument"),
        ([CONFIG, "env.user_dir=/etc/passwd"], "env.user_dir='/etc/passwd': is no Python file"),
        (["--list", "env.user_dir=/etc/passwd"], "env.user_dir='/etc/passwd': is no Python file"),
        (["--list", "env.user_dir=a\0b"], "env.user_dir: 'a\\x00b' is invalid: a path cannot hold the character NUL"),
        ([CONFIG, "plugins=1/0"], "plugins: '1/0' cannot be imported"),
        ([CONFIG, "plugins=[.x]"], "plugins: '.x' cannot be imported"),
        ([CONFIG, "plugins=[null]"], "plugins[0]: None is invalid: must be text"),
        ([CONFIG, "\x1b[2J=3"], "\\x1b[2J: unknown key"),
        ([CONFIG, "x" * 9000 + "=3"], "characters left out"),
        ([CONFIG, "training.device=" + "y" * 9000], "(9,002 characters) is invalid: must be auto, cpu or cuda"),
        ([CONFIG, "a." * 3000 + "b=3"], "not understood"),
    ],
)
def test_a_near_miss_is_answered_with_what_was_meant(fails, arguments, message):
    line = fails(*arguments)
    assert message in line and len(line) <= 2000


def test_a_message_is_one_printable_line_with_head_and_tail():
    assert command.one_line(UserError("a\n  b\tc\x07\u2028d")) == "a b\\tc\\x07 d"
    line = command.one_line("start " + "x" * 10_000 + " end")
    assert len(line) <= 2000 and line.startswith("start x") and line.endswith("x end") and "characters left out" in line


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(monkeypatch, encoding):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.chdir(ROOT)
    assert cli.main([CONFIG, "--print-config", "env.data_dir=→×≥😀"]) == 0
    assert cli.main(["config=\udce9→.yaml"]) == 2
    for stream in streams.values():
        stream.flush()
    shown = "→×≥😀" if encoding == "utf-8" else "\\u2192" + ("×" if encoding == "latin-1" else "\\xd7")
    assert shown.encode(encoding) in streams["stdout"].buffer.getvalue()
    assert streams["stderr"].buffer.getvalue().startswith(b"error: config=")


def test_an_error_that_nobody_thought_of_is_one_line_and_keeps_its_traceback(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert command.exit_status(lambda: {}["key\n"], False, "") == 1
    line = capsys.readouterr().err
    (file,) = tmp_path.iterdir()
    assert line.startswith("error: KeyError: 'key\\n' (unexpected, in ") and line.count("\n") == 1 and str(file) in line
    assert "Traceback" in file.read_text() and "test_command.py" in file.read_text()
    assert command.exit_status(lambda: {}["key"], True, "") == 1
    assert "Traceback" in capsys.readouterr().err


TELL = "import sys; from pixelbert_plugin.commands.command import exit_status, tell; "
TELL += "sys.exit(exit_status(lambda: tell('x' * 100_000) or 0, False, ''))"


def test_a_reader_that_has_seen_enough_ends_it_quietly():
    with subprocess.Popen([sys.executable, "-c", TELL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()  # before anything is printed
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_a_full_disk_under_the_output_is_told():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", TELL], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert (done.returncode, done.stderr) == (2, "error: the output cannot be written (No space left on device)\n")


HOSTILE = [
    "",
    "~",
    "[]",
    "{}",
    "[",
    "{x",
    "'",
    "010",
    "1:30",
    "0x" + "f" * 300,
    "9" * 5000,
    "-1",
    ".nan",
    "1e999",
    "*x",
    "<<",
    "a: b",
]
HOSTILE += [
    "!!str x",
    "${x}",
    "${",
    "${..a}",
    "\\${x}",
    "\0",
    "\x1b[2J",
    "\x85",
    "\ud800",
    "é",
    "x" * 3000,
    "? x",
    ": ",
    "{type: [x]}",
]
HOSTILE += [
    "{params: 3}",
    "{type: 3, params: ~}",
    "{a: 1, a: 2}",
    "[null]",
    "[[[]]]",
    "resnet18",
    "adamw",
    "vqa",
    "???",
    "\t",
    "@x",
]
KEYS = ["run_type", "model", "datasets", "model_config", "model_config.pixelbert", "model_config.pixelbert.image_encoder.type"]
KEYS += [
    "model_config.pixelbert.text_encoder.params.dropout",
    "task_config",
    "dataset_config.vqa2.splits",
    "processors",
    "plugins",
]
KEYS += [
    "processors.text",
    "processors.image.params.mean",
    "optimizer",
    "optimizer.cnn",
    "optimizer.cnn.params",
    "scheduler.type",
]
KEYS += [
    "training",
    "training.seed",
    "training.dataset_weights",
    "training.early_stop.monitor",
    "env.save_dir",
    "env.user_dir",
    "",
]


def damaged(text: str, draw: random.Random) -> str:
    lines = text.splitlines()
    for _ in range(draw.choice([1, 1, 2, 4])):
        index = draw.randrange(len(lines))
        line = lines[index]
        place = draw.randrange(len(line) + 1)
        lines[index] = draw.choice(
            [
                line[:place],
                " " * draw.randrange(6) + line.lstrip(),
                f"{line.partition(':')[0]}: {draw.choice(HOSTILE)}",
                line[:place] + draw.choice(["\t", ":", " #", "{", "]", "'", "\0", "*a", "é", "${a}"]) + line[place:],
                f"{line}\n{line}",
                draw.choice(lines),
            ]
        )
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_configurations_and_command_lines_end_in_one_line(tmp_path, capsys, seed):
    draw = random.Random(seed)
    base = (ROOT / "projects/easy_vqa/configs/easy_vqa.yaml").read_text(encoding="utf-8")
    base = base.replace("user_dir: ..", f"user_dir: {ROOT / 'projects/easy_vqa'}")
    file = tmp_path / "damaged.yaml"
    for _ in range(40):
        text = damaged(base, draw) if draw.random() < 0.6 else base
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        options = [f"{draw.choice(KEYS)}={draw.choice(HOSTILE)}" for _ in range(draw.randrange(3))]
        status = cli.main(["--print-config", f"config={file}", *options])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert status in (0, 2) and len(lines) == (status == 2), (options, text, captured.err)
        assert all(line.startswith("error: ") and line.isprintable() and len(line) < 2100 for line in lines)
