"""The pages of docs/howto: their commands, on a smaller miniature world and for two updates, print what is shown."""

import json
import re
import shlex

import pytest
from test_docs import ROOT, blocks, check_printed
from test_mini import SHORT, SIZES

from pixelbert_plugin.commands import data as data_cli
from pixelbert_plugin.commands import run as cli

SMALL = {
    "pretraining": ["training.batch_size=32", "training.micro_batch_size=16"],
    "vqa": ["training.batch_size=8", "training.micro_batch_size=4", "processors.answers.params.min_occurrences=1"],
    "nlvr2": ["training.batch_size=8", "training.micro_batch_size=4"],
    "retrieval": ["training.batch_size=8", "training.micro_batch_size=4"],
}


@pytest.mark.slow
def test_the_commands_print_what_is_shown_and_leave_the_figures_where_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for page, small in SMALL.items():
        printed = ""
        for language, text in blocks(f"docs/howto/{page}.md"):
            if language == "text":
                check_printed(text, printed)
                continue
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                capsys.readouterr()
                if program == "pixelbert-data":
                    assert data_cli.main([*arguments, "processes=1", *(f"{name}={size}" for name, size in SIZES.items())]) == 0
                else:
                    assert program == "pixelbert-run" and cli.main([*arguments, *SHORT, *small]) == 0
                printed = capsys.readouterr().out
    for page in SMALL:  # the tables "figure, where"
        text = (ROOT / f"docs/howto/{page}.md").read_text(encoding="utf-8")
        (folder,) = set(re.findall(r"`(save/mini_\w+)/results\.json`", text))
        results = json.loads((tmp_path / folder / "results.json").read_text())
        table = text[text.index("| figure | where |") :].split("\n\n")[0]
        named = re.findall(r"`((?:val|test|minitest|test1)/[^`]+)`", table)
        assert named and all(name in results for name in named), (page, named, sorted(results))
        for file in re.findall(r"`(predictions/[^`]+)`", table):
            assert (tmp_path / folder / file).is_file(), file
