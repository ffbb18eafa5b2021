"""`pixelbert-run` without a run: what it prints takes no torch."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from pixelbert_plugin import registry
from pixelbert_plugin.config import shipped

RECIPE = "config=projects/pixelbert/configs/vqa2.yaml"
PRINT = """
import contextlib, io, json, sys
from pixelbert_plugin import registry
from pixelbert_plugin.commands.run import main

def printed(command):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(command)
    return status, out.getvalue(), err.getvalue()

def loaded():
    return [name for name in ("torch", "torchvision", "transformers", "rich") if name in sys.modules]

commands = json.loads(sys.stdin.read())
without = [(*printed(command), loaded()) for command in commands]
for kind in registry.KINDS:
    for name in registry.names(kind):
        registry.get(kind, name)
with_torch = [printed(command) for command in commands]
json.dump([without, with_torch, loaded()], sys.stdout)
"""


@pytest.mark.parametrize("share", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_printed_takes_no_torch_and_is_the_same_with_it(share):
    """Shipped configurations, components, kinds and mistakes, all or every fifth, in one interpreter that imports all in the
    end."""
    wrong = {
        "model_config.pixelbert.num_sampeld_pixels=1": "did you mean num_sampled_pixels?",
        "model_config.pixelbert.image_encoder.params.max_pool=perhaps": "is invalid",
        "processors.image.params.short_edge=9999": "short_edge: 9999 is invalid: must be at most long_edge",
        "optimizer.cnn.params.lr=-1": "must be at least 0",
        "task=vqa3": "no task is registered as 'vqa3'; did you mean vqa?",
        "scheduler.type=stpe": "did you mean step?",
        "training.precision=apx": "no precision is registered as 'apx'",
        "processors.text.type=resnet50": "no processor is registered as 'resnet50'",
    }
    names = {name for kind in registry.KINDS for name in registry.names(kind) if registry.origin(kind, name) == "built-in"}
    commands = [
        ["--list", "env.user_dir=projects/easy_vqa"],
        *([f"config={path}", "--print-config"] for path in shipped.configurations()),
        *([RECIPE, "--print-config", f"training.precision={name}"] for name in ("fp16", "apex")),
        *(["--describe", name] for name in sorted({*names, *registry.KINDS, "training", "env"})),
        *([RECIPE, "--print-config", option] for option in wrong),
    ][::share]
    done = subprocess.run(
        [sys.executable, "-c", PRINT], input=json.dumps(commands), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    without, with_torch, loaded = json.loads(done.stdout)
    assert "torch" in loaded
    for command, (*printed, loaded), again in zip(commands, without, with_torch, strict=True):
        assert loaded == [], command
        assert printed == again, command
        expected = wrong.get(command[-1])
        assert printed[0] == (2 if expected else 0) and (expected or "") in printed[2], (command, printed[2])


@pytest.mark.slow
def test_a_plugin_that_imports_torch_is_listed_and_printed(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import torch\nfrom pixelbert_plugin import register_encoder\n"
        "from pixelbert_plugin.encoders.resnet import ResNet18\n\n\n"
        "@register_encoder('mine')\nclass Mine(ResNet18):\n    '''A ResNet of mine.'''\n"
    )
    commands = [
        ["--list", f"env.user_dir={plugin}"],
        [RECIPE, f"env.user_dir={plugin}", "--print-config", "model_config.pixelbert.image_encoder.type=mine"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", PRINT], input=json.dumps(commands), cwd=ROOT, capture_output=True, text=True, check=False
    )
    (listed, resolved), again, _ = json.loads(done.stdout)
    assert f"  mine               [user plugin {plugin}:6] A ResNet of mine.\n" in listed[1]
    assert "  resnet18           [built-in] ResNet-18" in listed[1] and "      type: mine " in resolved[1]
    assert [listed[:3], resolved[:3]] == again
