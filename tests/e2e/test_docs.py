"""The documents' code, run word for word."""

import json
import re
from pathlib import Path

import yaml
from conftest import TINY, draw_image

from pixelbert_plugin import cli

ROOT = Path(__file__).parent.parent.parent


def test_the_data_set_of_extending_md_trains(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(encoding="utf-8"), re.S).group(1)
    assert len(code.splitlines()) <= 40
    (tmp_path / "my_vqa.py").write_text(code)
    folder = tmp_path / "data/my_vqa"
    for split, count in (("train", 6), ("val", 3)):
        rows = []
        for number in range(count):
            color = ("red", "green", "blue")[number % 3]
            draw_image(folder / f"{split}{number}.png", color, number)
            rows.append({"image": f"{split}{number}.png", "question": "what color is it?", "answer": color})
        (folder / f"{split}.json").write_text(json.dumps(rows))
    env = {"data_dir": str(tmp_path / "data"), "user_dir": "my_vqa.py", "save_dir": str(tmp_path / "run")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**TINY, "datasets": ["my_vqa"], "env": env}))
    assert cli.main([f"config={tmp_path / 'c.yaml'}"]) == 0
    assert "val/my_vqa/accuracy" in json.loads((tmp_path / "run/results.json").read_text())


def test_every_configuration_in_the_readmes_exists():
    for readme in (ROOT / "README.md", *ROOT.glob("projects/*/README.md")):
        for path in re.findall(r"config=(projects/\S+?\.yaml)", readme.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), f"{readme}: {path}"
