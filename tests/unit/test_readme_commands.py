"""Every training command of the documents, read as a shell reads it, is a configuration without a mistake."""

import re
import shlex

import pytest
from conftest import ROOT

from pixelbert_plugin import config as configuration

PATTERNS = ("README.md", "docs/**/*.md", "projects/*/*.md", "datasets/*/README.md", "benchmarks/README.md")
DOCUMENTS = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
COMMAND = re.compile(r"pixelbert-run (config=projects/[^`\n]+)")


def commands() -> list[str]:
    """The arguments of each, once; other tests have those with placeholders, with flags or of a plugin."""
    found = [match for document in DOCUMENTS for match in COMMAND.findall(document.read_text(encoding="utf-8"))]
    return sorted({text.strip() for text in found if not re.search(r" --|…|PATH|FILE|projects/easy_vqa", text)})


@pytest.mark.parametrize("arguments", commands())
def test_the_commands_of_the_documents_are_without_a_mistake(arguments):
    first, *overrides = shlex.split(arguments, comments=True)
    overrides = overrides[: overrides.index("&&")] if "&&" in overrides else overrides
    path = ROOT / first.removeprefix("config=")
    configuration.complete(configuration.load(str(path), overrides))


def test_the_row_of_vqas_test_dev_is_made_by_its_commands():
    """Pre-training, fine-tuning from it on train and val less minival, and test-dev's questions from the same folder."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = [line.strip() for line in text.splitlines() if line.startswith("    pixelbert-run config=projects/pixelbert/")]
    pretrain, train, test = (
        configuration.complete(configuration.load(str(ROOT / first.removeprefix("config=")), overrides))
        for first, *overrides in (shlex.split(line)[1:] for line in block)
    )
    assert pretrain.task == "pretrain" and train.checkpoint.pretrained == f"{pretrain.env.save_dir}/checkpoints/best"
    use = train.dataset_config["vqa2"].use
    assert use == {"train": "trainval", "val": "minival"} and "train" in train.splits()
    assert train.processors.answers.params.splits == [
        "train",
        "val",
    ]  # both as `use` says: trainval and minival, so all of them
    assert test.splits() == ["test"] and test.dataset_config["vqa2"].use == {"test": "test-dev"}
    assert test.env.save_dir == train.env.save_dir and test.checkpoint.pretrained is None
