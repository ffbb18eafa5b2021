"""The command line as a user types it: help, lists, descriptions, plugins, wheels."""

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from pixelbert_plugin import registry
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.registry import contracts

ROOT = Path(__file__).parent.parent.parent


def script(*arguments, cwd=None, **environment):
    command = [sys.executable, "-m", "pixelbert_plugin", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, check=False)


def test_help_imports_nothing_heavy():
    code = "import sys; from pixelbert_plugin.commands import run as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'transformers', 'omegaconf', 'rich', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "key=value" in done.stdout


def test_list_shows_kind_name_origin_and_description(capsys):
    assert cli.main(["--list", f"env.user_dir={ROOT / 'projects/easy_vqa'}"]) == 0
    out = capsys.readouterr().out
    assert "resnet50           [built-in] ResNet-50: the paper's smaller backbone." in out
    line = next(line for line in out.splitlines() if line.strip().startswith("easy_vqa"))
    assert "user plugin" in line and "easy_vqa.py" in line and "shape and the colour" in line
    headings = [line for line in out.splitlines() if not line.startswith(" ")]
    kinds = "models encoders processors builders tasks metrics optimizers schedulers precisions checkpoint_readers"
    kinds += " trackers explanations"
    assert headings == [*kinds.split(), "configurations"]
    assert "  mini/vqa2                [projects/pixelbert/configs/mini/vqa2.yaml] VQA in miniature\n" in out
    assert "ablations" not in out and "common.yaml" not in out  # a sweep, and what the others include


def test_describe_prints_options_defaults_and_comments(capsys):
    assert cli.main(["--describe", "pixelbert"]) == 0
    out = capsys.readouterr().out
    assert "num_sampled_pixels: int | None = null\n      pixels drawn per image in training; paper: 100" in out
    assert "position_embedding: none | 2d = none" in out
    assert cli.main(["--describe", "training"]) == 0
    assert "micro_batch_size: int | None = null" in capsys.readouterr().out
    assert cli.main(["--describe", "pixelbrt"]) == 2
    assert "did you mean pixelbert?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", registry.KINDS)
def test_describe_prints_what_a_kind_must_have_and_may_have(kind, capsys):
    """All of its contracts' members, with their meaning; what may be left out is said apart."""
    assert cli.main(["--describe", kind]) == 0
    blocks = capsys.readouterr().out.split(f"kind {kind}")[1:]
    assert len(blocks) == len(contracts.USES[kind])
    for block, use in zip(blocks, contracts.USES[kind], strict=True):
        required, _, optional = block.partition("\nmay have:\n")
        for name, member in inspect.getmembers(use.contract):
            if not name.startswith("_") or getattr(member, "__isabstractmethod__", False):
                place = required if getattr(member, "__isabstractmethod__", False) else optional
                assert re.search(rf"^  {re.escape(name)}[:(]", place, re.M), name
        assert all(re.search(rf"^  {name}: ", required, re.M) for name in contracts.members(use.contract).attributes)
    if kind == "model":
        assert "must also have, as MatchingModel:" in blocks[0] and "  fuse(words_QLD, text_mask_QL, " in blocks[0]


@pytest.mark.parametrize("kind", ["model", "encoder", "processor", "builder", "task", "optimizer", "scheduler"])
def test_every_option_of_every_component_has_a_comment(kind):
    import dataclasses

    from pixelbert_plugin import registry
    from pixelbert_plugin.config import describe
    from pixelbert_plugin.config.options import RunConfig

    sections = [field.type for field in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(field.type)]
    configs = [getattr(registry.get(kind, name), "Config", None) for name in registry.names(kind)]
    for config in [*filter(None, configs), *sections]:
        comments = describe._comments(config)
        assert all(comments[field.name] for field in dataclasses.fields(config)), config


def test_user_plugin_errors_are_named(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import not_a_package_at_all\n")
    assert cli.main(["--list", f"env.user_dir={tmp_path}"]) == 2
    assert "pip install not_a_package_at_all" in capsys.readouterr().err
    (tmp_path / "broken.py").write_text(
        "from pixelbert_plugin import registry\n@registry.register_model('pixelbert')\nclass Mine: pass\n"
    )
    assert cli.main(["--list", f"env.user_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "registered twice" in error and "models/pixelbert.py" in error and "broken.py" in error


DISTRIBUTION = {
    "setup.py": """
        from setuptools import setup
        setup(
            name="tiny-plugin", version="0.3", py_modules=["tiny_plugin"],
            entry_points={"pixelbert_plugin_models": ["bag_of_words = tiny_plugin:BagOfWords"]},
        )
    """,
    "tiny_plugin.py": '''
        """A second distribution with a model that never looks at the image."""
        from dataclasses import dataclass

        import torch
        from torch import nn

        from pixelbert_plugin.types import ModelOutput


        class BagOfWords(nn.Module):
            """Words only: the mean of their embeddings."""

            @dataclass(kw_only=True)
            class Config:
                width: int = 16  # of the embeddings

            def __init__(self, config, vocab_size, heads, pad_token_id=0):
                super().__init__()
                self.words = nn.EmbeddingBag(vocab_size, config.width, padding_idx=pad_token_id)
                self.head = nn.Linear(config.width, heads["answers"])

            def forward(self, batch):
                words = self.words(batch.input_ids)
                empty = torch.zeros(len(words), 0)
                return ModelOutput(
                    logits={"answers": self.head(words)}, text=words[:, None], pixels=words[:, :0, None],
                    pixel_mask=empty.bool(), pixel_positions=empty.long(), grid=(0, 0),
                )

            def parameter_groups(self):
                return {"all": list(self.named_parameters())}
    ''',
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> str:
    """A folder into which the tiny distribution is installed, to be put on PYTHONPATH."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in DISTRIBUTION.items():
        (source / name).write_text(textwrap.dedent(text))
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(target)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True)
    return str(target)


@pytest.mark.slow
def test_another_distribution_adds_a_model_by_entry_point(installed, tiny_config, tmp_path):
    options = ["model=bag_of_words", "model_config={bag_of_words: {width: 8}}", "optimizer={all: {type: adamw}}"]
    config = tmp_path / "bag.yaml"
    content = yaml.safe_load(tiny_config.read_text())
    content["model_config"], content["optimizer"] = {}, {}
    config.write_text(yaml.safe_dump(content))
    commands = [["--list"], [f"config={config}", *options]]
    commands.append([*commands[1], "model_config.bag_of_words.wdth=3"])

    code = (  # one interpreter for all
        "import json, sys; from pixelbert_plugin.commands import run as cli\n"
        "print([cli.main(command) for command in json.loads(sys.argv[1])])"
    )
    environment = {**os.environ, "PYTHONPATH": installed}
    command = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2]", done.stderr
    assert "bag_of_words       [entry point of tiny-plugin 0.3 (tiny_plugin:BagOfWords)] Words only" in done.stdout
    assert "question_prior" in done.stdout
    assert "model_config.bag_of_words.wdth: unknown key; did you mean width?" in done.stderr


@pytest.mark.slow
def test_an_entry_point_cannot_shadow_a_built_in(installed):
    code = (
        "import catalogue, importlib.metadata as m\n"
        "point = m.EntryPoint('pixelbert', 'tiny_plugin:BagOfWords', 'pixelbert_plugin_models')\n"
        "catalogue.AVAILABLE_ENTRY_POINTS = m.EntryPoints([point])\n"
        "from pixelbert_plugin.commands import run as cli; raise SystemExit(cli.main(['--list']))"
    )
    environment = {**os.environ, "PYTHONPATH": installed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and "registered twice" in done.stderr
    assert "models/pixelbert.py" in done.stderr and "tiny_plugin:BagOfWords" in done.stderr


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_finds_the_shipped_configs(tmp_path):
    """Built from the repository, unpacked elsewhere, run from an empty folder."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel = next((tmp_path / "dist").glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    top = {path.name for path in (tmp_path / "site").iterdir()}
    assert not top & {"datasets", "projects", "tests", "benchmarks"}
    empty = tmp_path / "empty"
    empty.mkdir()
    for config in ("projects/pixelbert/configs/vqa2.yaml", "projects/easy_vqa/configs/easy_vqa.yaml"):
        done = script(f"config={config}", "--print-config", cwd=empty, PYTHONPATH=str(tmp_path / "site"))
        assert done.returncode == 0, done.stderr
        assert f"# {config}" in done.stdout
    for config in ("projects/pixelbert/configs/mini/vqa2.yaml", "projects/easy_vqa/configs/easy_vqa.yaml"):
        original, copy = (
            empty / config,
            empty / f"{config.partition('configs/')[2].removesuffix('.yaml').replace('/', '_')}.yaml",
        )
        done = script("--copy-config", config, cwd=empty, PYTHONPATH=str(tmp_path / "site"))
        assert done.returncode == 0 and done.stdout == f"pixelbert-run config={copy.name}\n", done.stderr
        shown = [
            script(f"config={path}", "--print-config", cwd=empty, PYTHONPATH=str(tmp_path / "site"))
            for path in (original.relative_to(empty), copy.name)
        ]
        of_original, of_copy = (yaml.safe_load(done.stdout) for done in shown)
        assert of_copy == of_original and of_copy["datasets"], shown[1].stderr  # all values, save_dir's too: of the same name
    done = script("--new-plugin", "made_elsewhere", cwd=empty, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0 and (empty / "made_elsewhere/src/made_elsewhere/builder.py").is_file(), done.stderr
    where = [sys.executable, "-c", "import pixelbert_plugin; print(pixelbert_plugin.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    file = subprocess.run(where, capture_output=True, text=True, cwd=empty, env=environment, check=True).stdout
    assert str(tmp_path / "site") in file
