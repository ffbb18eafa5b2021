"""The documents' code, run word for word."""

import os
import re
import site
import subprocess
import sysconfig
import venv
from pathlib import Path

import easy_vqa
import numpy as np
import pytest
from PIL import Image

import pixelbert_plugin

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
    programs = {"pip": "pip", "pixelbert-run": "pixelbert_plugin", "pixelbert-predict": "pixelbert_plugin.commands.predict"}
    for name, module in programs.items():
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -P -m {module} "$@"\n')
        command.chmod(0o755)
    path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PIP_NO_BUILD_ISOLATION": "1", "OMP_NUM_THREADS": "1"}


def run(command: str, cwd: Path, environment: dict[str, str]) -> str:
    # as in a document, PYTHONPATH=. is put before what is there already
    command = command.replace("PYTHONPATH=.", f"PYTHONPATH=.:{ROOT}")
    done = subprocess.run(["bash", "-ec", command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def write(text: str, folder: Path) -> None:
    """Save a block as the file that its first line names."""
    name = re.match(r"# (\S+)\n", text).group(1)
    (folder / name).write_text(text)


@pytest.mark.slow
def test_the_documents_blocks_run_as_they_stand(environment, tmp_path):
    outputs = []
    for language, text in blocks("docs/extending.md"):
        if language == "bash":
            outputs.append(run(text, tmp_path, environment))
        else:
            assert language in ("python", "yaml"), language
            write(text, tmp_path)
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
    for readme in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("projects/*/README.md")):
        for path in re.findall(r"config=(projects/\S+?\.yaml)", readme.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), f"{readme}: {path}"
