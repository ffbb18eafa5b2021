"""The documents' code, run word for word."""

import csv
import json
import os
import re
import site
import subprocess
import sysconfig
import venv
from collections import Counter
from pathlib import Path

import easy_vqa
import numpy as np
import pytest
import yaml
from PIL import Image

import pixelbert_plugin
from pixelbert_plugin import registry

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)


def blocks(document: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a document, in order."""
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """A virtual environment that has all of this one, and takes what a document installs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    shared = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
    (packages / "shared.pth").write_text("".join(shared))
    programs = {"pip": "-m pip", "pixelbert-run": "-m pixelbert_plugin"}
    for name in ("data", "predict"):
        programs[f"pixelbert-{name}"] = f"-c 'from pixelbert_plugin.commands.{name} import main; raise SystemExit(main())'"
    for name, started in programs.items():
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -P {started} "$@"\n')
        command.chmod(0o755)
    path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PIP_NO_BUILD_ISOLATION": "1", "OMP_NUM_THREADS": "1"}


def run(command: str, cwd: Path, environment: dict[str, str]) -> str:
    # as in a document, PYTHONPATH=. is put before what is there already
    command = command.replace("PYTHONPATH=.", f"PYTHONPATH=.:{ROOT}")
    done = subprocess.run(["bash", "-ec", command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def shape_of(line: str) -> str:
    """A line with its numbers and the room between words left out: what a run prints alike on every machine."""
    return " ".join(re.sub(r"\d[\d,]*(\.\d+)?(e[-+]\d+)?", "0", line).split())


def check_printed(shown: str, output: str) -> None:
    """Every line that a document shows stands in the output, in this order; … is for any lines, and in a line for any text."""
    printed = iter(shape_of(line) for line in output.splitlines())
    for line in filter(None, map(shape_of, shown.splitlines())):
        wanted = re.compile(".*".join(map(re.escape, line.split("…"))))
        assert line == "…" or any(wanted.fullmatch(found) for found in printed), f"{line!r} is not in\n{output}"


def test_what_a_document_shows_is_looked_for_line_by_line():
    check_printed("update 20  loss 2.5\n…\nsave/x  done", "loading\nupdate 40   loss 0.25\nmore\nsave/x done\n")
    check_printed("update 20  …  done", "update 3 with 5 of 6 done\n")
    for shown in ("update 20 losses 2.5", "save/x\nupdate 1 loss 1"):
        with pytest.raises(AssertionError, match="is not in"):
            check_printed(shown, "update 40 loss 0.25\nsave/x\n")


def write(text: str, folder: Path) -> None:
    """Save a block as the file that its first line names."""
    name = re.match(r"# (\S+)\n", text).group(1)
    (folder / name).write_text(text)


def follow(document: str, folder: Path, environment: dict[str, str], shorter: dict[str, str] | None = None) -> list[str]:
    """What a reader does: save files, run commands (some made shorter), look for what is shown. Returns the outputs."""
    outputs, left = [], dict(shorter or {})
    for language, text in blocks(document):
        if language == "bash":
            for long in [long for long in left if long in text]:
                text = text.replace(long, left.pop(long))
            outputs.append(run(text, folder, environment))
        elif language == "text":
            check_printed(text, outputs[-1])
        else:
            assert language in ("python", "yaml"), language
            write(text, folder)
    assert not left
    return outputs


@pytest.mark.slow
def test_the_first_steps_run_as_they_stand(environment, tmp_path):
    """But for the length of the training: a reader's 40 updates are four here."""
    (tmp_path / "projects").symlink_to(ROOT / "projects")  # in a clone
    shorter = {"training.max_updates=40": "training.max_updates=4 training.log_interval=1 training.batch_size=64"}
    asked, by_python, trained = follow("docs/start.md", tmp_path, environment, shorter)
    assert asked.splitlines()[-3].split("│")[0].strip() == "red" and by_python.splitlines()[-1] == "no"
    assert "│ kind" in trained.replace("┃", "│") and (tmp_path / "save/easy_vqa/checkpoints/best").exists()


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands_and_its_model_learns(environment, tmp_path):
    """Far above the question-only prior: colours, which are soon learned, and numbers, for which it must see the dots."""
    shorter = {"training.max_epochs=2 env.save_dir": "training.max_updates=2 run_type=train_val env.save_dir"}
    follow("docs/tutorial.md", tmp_path, environment, shorter)
    results = json.loads((tmp_path / "save/dice/results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "data/dice/test.csv").open(encoding="utf-8")))
    asked = Counter((row["question"], row["answer"]) for row in csv.DictReader((tmp_path / "data/dice/train.csv").open()))
    frequent = {question: answer for (question, answer), _ in reversed(asked.most_common())}
    prior = sum(frequent[row["question"]] == row["answer"] for row in rows) / len(rows)
    assert results["test/dice/question_prior"] == pytest.approx(prior) and prior < 0.3
    assert results["test/dice/accuracy"] > 0.75 and results["test/dice/accuracy[asked for=number]"] > 0.6
    answers = list(csv.DictReader((tmp_path / "answers.csv").open(encoding="utf-8")))
    right = sum(row["predicted_answer"] == row["answer"] for row in answers) / len(rows)
    assert len(answers) == len(rows) and right == pytest.approx(results["test/dice/accuracy"], abs=0.01)
    assert (tmp_path / "save/dice_without/results.json").exists()


@pytest.mark.slow
def test_the_documents_blocks_run_as_they_stand(environment, tmp_path):
    outputs = follow("docs/extending.md", tmp_path, environment)
    results = json.loads((tmp_path / "save/my_vqa/results.json").read_text())
    assert 0.41 < results["val/my_vqa/question_prior"] < 0.42 and results["val/my_vqa/accuracy"] > 0.9  # with five seeds: 1
    trained = [output for output in outputs if "results.json" in output]
    # the data set, two backbones, a tokenizer, a metric, a task, a precision, a model, and the package's own
    assert len(trained) == 9
    assert Image.open(tmp_path / "why.png").format == "PNG"  # of the method of explaining
    assert "val/my_vqa" in trained[0] and "│ asked for" in trained[0] and "│   shape" in trained[0]
    assert sum("val/my_captions" in output and "text_to_image_r@1" in output for output in trained) == 1
    assert sum("│ asked for" in output and "│   color" in output for output in trained) == 6


def test_the_data_set_stays_short():
    """That it trains is seen where all blocks run."""
    (text,) = (text for _, text in blocks("docs/extending.md") if text.startswith("# my_vqa.py\n"))
    assert len(text.splitlines()) <= 40


@pytest.mark.slow
def test_a_new_plugin_installs_is_found_and_trains(environment, tmp_path):
    """In an environment of its own, with its own test too."""
    instructions = run("pixelbert-run --new-plugin my_shapes", tmp_path, environment)
    assert instructions == "pip install -e ./my_shapes && pixelbert-run config=my_shapes/src/my_shapes/configs/my_shapes.yaml\n"
    run("pip install -q -e ./my_shapes", tmp_path, environment)
    listed = run("pixelbert-run --list", tmp_path, environment)
    assert re.search(r"my_shapes          \[entry point of my[_-]shapes 0\.1\.0", listed)  # setuptools may write a dash
    assert "1 passed" in run("python -m pytest -q -p no:cacheprovider my_shapes/tests", tmp_path, environment)
    assert run(
        "python -m ruff check my_shapes && python -m ruff format --check --line-length 128 my_shapes", tmp_path, environment
    )


@pytest.mark.slow
def test_the_readmes_python_runs_as_it_stands(environment, tmp_path):
    """But for its length: two updates, and the validation split in place of the larger test split."""
    (language, text), *_ = blocks("README.md")
    assert language == "python" and len(text.strip().splitlines()) <= 10
    text = text.replace('"training.max_epochs=1"', '"training.max_updates=2", "run_type=train_val"').replace("test/", "val/")
    (tmp_path / "recipe.py").write_text(text)
    Image.new("RGB", (80, 60), "red").save(tmp_path / "picture.png")
    output = run("python recipe.py", tmp_path, environment)
    accuracy, answer = output.splitlines()[-2:]
    assert 0 <= float(accuracy) <= 1 and answer in easy_vqa.get_answers()


@pytest.mark.slow
def test_an_exported_models_blocks_run_as_they_stand(environment, tmp_path):
    """But for the length of the training. ONNX Runtime alone, transformers and this package give one answer."""
    pytest.importorskip("onnxscript", reason="pip install 'pixelbert_plugin[export]'")
    pytest.importorskip("onnxruntime", reason="pip install 'pixelbert_plugin[export]'")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # not resized: Pillow would round
    Image.fromarray(noise).save(tmp_path / "picture.png")
    printed = []
    for language, text in blocks("docs/huggingface.md"):
        if language == "bash":
            text = text.replace(
                "easy_vqa.yaml\n", "easy_vqa.yaml training.max_updates=2 run_type=train training.batch_size=64\n"
            )
            run(text, tmp_path, environment)
        else:
            write(text, tmp_path)
            printed.append(run(f"python {re.match(r'# (.+)', text)[1]}", tmp_path, environment).splitlines())
            assert len(text.splitlines()) <= 36
    (best, by_transformers), (by_onnx,) = printed
    loaded = pixelbert_plugin.load(tmp_path / "save/easy_vqa")
    logits = loaded(tmp_path / "picture.png", "what color is the shape?").logits["answers"]
    answer = loaded.processors["answers"].spellings[logits.argmax()]
    assert answer == by_transformers == by_onnx and best.startswith(f"[{{'answer': '{answer}', 'score': ")


@pytest.mark.slow
def test_a_table_of_ones_own_gets_to_answers(environment, tmp_path):
    """But for the length of the training. What `new` says of the table is what the document shows."""
    text = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
    outputs = []
    for language, block in blocks("docs/own-data.md"):
        if language == "python":
            write(block, tmp_path)
        elif language == "bash":
            shorter = block.replace("config=my.yaml", "config=my.yaml training.max_updates=2 training.num_workers=0")
            outputs.append(run(shorter, tmp_path, environment))
    made, proposed, trained, answered = outputs
    told = proposed.partition("\n\n")[0].splitlines()
    assert made == "" and len(told) == 7 and all(f"    {line}\n" in text for line in told)
    assert "test/table" in trained and "│   color" in trained
    assert re.search(r"red|green|blue|yellow|yes|no|disc|square", answered)
    options = yaml.safe_load(next(block for language, block in blocks("docs/own-data.md") if language == "yaml"))
    assert registry.configure("builder", "table", options["dataset_config"]["table"], "dataset_config.table")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vqa2", "there is a builder of this name [built-in]; choose another"),
        ("My-Data", "must be a Python name in small letters"),
        ("class", "must be a Python name in small letters"),
        ("x" * 51, "must be a Python name in small letters, digits and _, of at most 50"),
        ("match", "is a word of Python's own; choose another"),
        ("print", "is a word of Python's own; choose another"),
        ("json", "is a module's name that Python or its test runner uses"),
        ("conftest", "is a module's name that Python or its test runner uses"),
        ("torch", "is the name of an installed distribution, torch"),
        ("pyyaml", "is the name of an installed distribution, PyYAML"),
        ("pil", "is the name of an installed module, PIL"),
        ("yaml", "is the name of an installed module, yaml"),
        ("fp16", "there is a precision of this name [built-in]; choose another"),
        ("taken", "taken is there already; choose another name, or remove it"),
    ],
)
def test_a_new_plugins_name_must_be_free(name, message, tmp_path, monkeypatch, capsys):
    from pixelbert_plugin.commands import run as cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    assert cli.main(["--new-plugin", name]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"] and not any((tmp_path / "taken").iterdir())


def test_every_configuration_in_the_readmes_exists():
    patterns = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "projects/*/README.md")
    for readme in (path for pattern in patterns for path in ROOT.glob(pattern)):
        for path in re.findall(r"config=(projects/\S+?\.yaml)", readme.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), f"{readme}: {path}"
