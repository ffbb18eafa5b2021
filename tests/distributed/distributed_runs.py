"""Runs on one process and several, and what they logged."""

import json
from pathlib import Path

from preloaded import together
from several_runs import run_several


def run_all(processes: int, in_float64: list[list[str]], as_they_are: list[list[str]], tmp_path: Path) -> None:
    """Run the commands one after another on so many processes; fails with what they printed."""
    runs = [{"arguments": arguments, "float64": True} for arguments in in_float64]
    runs += [{"arguments": arguments, "float64": False} for arguments in as_they_are]
    together(processes, run_several, runs, tmp_path)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder)]


def results(folder: Path) -> dict:
    content = json.loads((folder / "results.json").read_text())
    content.pop("training_seconds", None)
    return content
