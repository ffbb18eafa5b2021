"""`pixelbert-demo`: what it says before there is a page. The page's own tests are in ../demo."""

import builtins
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from importlib import metadata

import pytest
from conftest import ROOT

import pixelbert_plugin
from pixelbert_plugin.commands import demo
from pixelbert_plugin.config.files import command_line
from pixelbert_plugin.demo.options import DemoConfig
from pixelbert_plugin.registry.schema import merge


def error(capsys, *arguments: str) -> str:
    assert demo.main(list(arguments)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_help_is_quick_and_has_every_key():
    code = (
        "import sys; from pixelbert_plugin.commands import demo\n"
        "try:\n    demo.main(['--help'])\n"
        "finally:\n    print({'torch', 'gradio', 'fastapi'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == "set()\n"
    assert all(f"{name}=" in done.stdout for name in vars(DemoConfig(checkpoint="x")))
    defaults = vars(DemoConfig(checkpoint="x"))
    for key, value in re.findall(r"(host|port|max_upload_mb|top_k)=(\S+)", done.stdout.split("keys:")[1]):
        assert str(defaults[key]) == value or float(value) == defaults[key]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("prot=80", "prot: unknown key; did you mean port?"),
        ("port=70000", "port: 70000 is invalid: must be at most 65535"),
        ("top_k=0", "top_k: 0 is invalid: must be at least 1"),
        ("max_upload_mb=0", "max_upload_mb: 0.0 is invalid: must be above 0"),
        ("max_upload_mb=.inf", "max_upload_mb: inf is invalid: must be finite"),
        ("host=", "host: None is invalid: must be text"),
        ("config=x.yaml", "config: unknown key; the checkpoint has its configuration: checkpoint=PATH"),
    ],
)
def test_a_wrong_option_is_one_line(capsys, option, told):
    assert told in error(capsys, "checkpoint=nowhere", option)


def test_loopback_is_the_default():
    assert DemoConfig(checkpoint="x").host == "127.0.0.1"


def test_without_gradio_it_says_what_to_install(capsys, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    told = error(capsys, "checkpoint=nowhere")
    assert told == ("error: the page needs the package gradio, which is not installed; pip install 'pixelbert_plugin[demo]'\n")
    monkeypatch.undo()
    own = builtins.__import__

    def without_one_of_its_own(name, *more):
        if name == "gradio":
            raise ModuleNotFoundError("No module named 'orjson'", name="orjson")
        return own(name, *more)

    monkeypatch.setattr(metadata, "version", lambda name: "6.27.0")
    monkeypatch.setattr(builtins, "__import__", without_one_of_its_own)
    assert "the page needs the package orjson, which is not installed" in error(capsys, "checkpoint=nowhere")


def test_a_checkpoint_that_is_none_and_images_that_cannot_be_searched(models, pictures, capsys, monkeypatch):
    monkeypatch.setattr("pixelbert_plugin.demo.page.gradio", lambda: None)
    assert "checkpoint='nowhere'" in error(capsys, "checkpoint=nowhere")
    monkeypatch.setattr(demo, "_askable", lambda config: models["vqa"])
    told = error(capsys, "checkpoint=nowhere", f"images={pictures[0].parent}")
    assert "search: the task 'vqa' of" in told and "it can be asked answer(image, question)" in told
    monkeypatch.setattr(demo, "_askable", lambda config: models["retrieval"])
    assert "images='nowhere': no such folder" in error(capsys, "checkpoint=nowhere", "images=nowhere")


def commands() -> list[str]:
    """Those of the documents and of --help."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/demo.md", "docs/asking.md")] + [
        demo.EPILOG
    ]
    found = re.findall(r"^ +(pixelbert-demo(?: checkpoint=(?!PATH).*)?)$", "\n".join(texts), re.M)
    return sorted({line.strip() for line in found})


def test_the_commands_of_the_documents_are_without_a_mistake():
    assert len(commands()) == 4
    for command in commands():
        given = merge(DemoConfig, command_line(shlex.split(command)[1:])).checkpoint
        assert given == "" if command == "pixelbert-demo" else given.startswith("save/")
    text = (ROOT / "docs/demo.md").read_text(encoding="utf-8")
    named = {"max_upload_mb": "20", "port": "7860"}  # as the document has the defaults
    assert all(value in text and float(value) == getattr(DemoConfig(checkpoint="x"), name) for name, value in named.items())


def test_the_documents_python_shows_where_an_answer_comes_from(models, pictures, monkeypatch, capsys):
    text = (ROOT / "docs/demo.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    monkeypatch.setattr(pixelbert_plugin, "load", lambda path: models["vqa"], raising=False)
    exec(code.replace("cat.jpg", str(pictures[0])), {})
    assert capsys.readouterr().out == "('[CLS]', 'what', 'is', 'it', '?', '[SEP]') (48, 64)\n"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_served_checkpoint_ends_with_status_0(tiny_run, sent):
    pytest.importorskip("gradio", minversion="6.27", reason="gradio is not installed: pip install -e '.[demo]'")
    command = [sys.executable, "-m", "pixelbert_plugin.commands.demo", f"checkpoint={tiny_run}", "port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        timer = threading.Timer(120, process.kill)
        timer.start()
        address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
        assert urllib.request.urlopen(address, timeout=20).status == 200
        time.sleep(0.2)
        process.send_signal(sent)
        assert process.wait(30) == 0 and process.stdout.read() == "ended\n"
    finally:
        timer.cancel()
        process.kill()
        process.wait()
