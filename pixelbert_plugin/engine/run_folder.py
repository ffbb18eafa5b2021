"""The folder of a run: who may write into it, and the files beside checkpoints and events.

save/<name>/  config.yaml  log.jsonl  evaluations.jsonl  results.json  skipped_images_<split>.json
              predictions/  scores/  checkpoints/  tensorboard/
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import UserError, replacing, writing

HOLDS_A_RUN = ("config.yaml", "log.jsonl", "checkpoints", "tensorboard")
ALL = (*HOLDS_A_RUN, "evaluations.jsonl", "results.json", "predictions", "scores")


class RunFolder:
    """`env.save_dir` of one run."""

    def __init__(self, path: Path):
        self.path = path

    def claim(self, may_hold_run: bool) -> None:
        """Refuse a folder that holds a run (unless it is resumed, overwritten or evaluated) or cannot be written."""
        held = [name for name in HOLDS_A_RUN if (self.path / name).exists()]
        if held and not may_hold_run:
            raise UserError(
                f"env.save_dir={str(self.path)!r}: holds a run already ({', '.join(held)}); add checkpoint.resume=true to go "
                "on with it, env.overwrite=true to delete it, or choose another env.save_dir"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable.{os.getpid()}"
            probe.write_text("")
            probe.unlink()

    def clear(self) -> None:
        """Delete a former run's files, and nothing else that may lie in the folder."""
        with writing(self.path):
            former = [self.path / name for name in ALL]
            for path in [*former, *self.path.glob("skipped_images_*.json")]:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> Path:
        """Write a file whole or not at all."""
        path = self.path / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as aside:
                aside.write_text(text, encoding="utf-8")
        return path

    def write_json(self, name: str, content: Any) -> Path:
        return self.write(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def add_results(self, results: dict[str, Any]) -> Path:
        """Merge into results.json, so that a later run_type=test adds to what training wrote."""
        path = self.path / "results.json"
        try:
            former = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError):
            former = {}  # a derived file: written anew
        return self.write_json("results.json", {**former, **results})
