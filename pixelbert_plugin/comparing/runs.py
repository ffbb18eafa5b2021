"""The folder of a run as it was left: options, metrics, logs and files of predictions. Nothing of it is changed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pixelbert_plugin.config.loading import leaves_of
from pixelbert_plugin.errors import UserError

WHERE = ("env.",)  # options that say where files lie, last of those that differ


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    path: Path
    name: str  # as it is called in the comparison
    options: dict[str, Any]  # by dotted key, as config.yaml has them
    results: dict[str, float]  # results.json
    log: list[dict[str, Any]]  # log.jsonl, by update
    evaluations: list[dict[str, Any]]  # evaluations.jsonl, by update
    predictions: dict[str, Path]  # by split and data set, "val_vqa2"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"


def read_runs(paths: list[Path]) -> list[Run]:
    """Raises UserError for a folder that holds no run, or one that is named twice."""
    if len(paths) < 2:
        given = f": {paths[0]} alone is given" if paths else ""
        raise UserError(f"--compare: takes the folders of two runs or more{given}")
    whole = [path.expanduser().resolve() for path in paths]
    for path, resolved in zip(paths, whole, strict=True):
        if whole.count(resolved) > 1:
            raise UserError(f"--compare: {path} is named twice")
    return [_read(path.expanduser(), name) for path, name in zip(paths, _names(whole), strict=True)]


def differing(runs: list[Run]) -> dict[str, list[str]]:
    """By dotted key, the values of options that are not the same in all runs; those of places last. "–": it is not set."""
    keys = dict.fromkeys(key for run in runs for key in run.options)
    found = {}
    for key in sorted(keys, key=lambda key: key.startswith(WHERE)):
        values = [_shown(run.options[key]) if key in run.options else "–" for run in runs]
        if len(set(values)) > 1:
            found[key] = values
    return found


def _read(path: Path, name: str) -> Run:
    file = path / "config.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = "no such folder" if not path.is_dir() else f"holds no run: config.yaml cannot be read ({error.strerror})"
        raise UserError(f"--compare {path}: {reason}; give a run's env.save_dir") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file}: is no YAML; it is not as the run wrote it") from error
    if not isinstance(config, dict):
        raise UserError(f"{file}: is no run's configuration")
    files = sorted((path / "predictions").glob("*")) if (path / "predictions").is_dir() else []
    return Run(
        path=path,
        name=name,
        options=leaves_of(config),
        results={key: value for key, value in _json(path / "results.json").items() if isinstance(value, int | float)},
        log=_lines(path / "log.jsonl"),
        evaluations=_lines(path / "evaluations.jsonl"),
        predictions={each.stem: each for each in files if each.is_file() and not each.name.startswith(".")},
    )


def _names(paths: list[Path]) -> list[str]:
    """The folders' own names, with as many of those above as tell them apart."""
    length = 1
    while len({path.parts[-length:] for path in paths}) < len(paths):
        length += 1
    return ["/".join(path.parts[-length:]) for path in paths]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _json(path: Path) -> dict[str, Any]:
    """What a derived file holds; {} where it is not there, or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a log that are whole."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("update"), int):
            found.append(record)
    return sorted(found, key=lambda record: record["update"])
