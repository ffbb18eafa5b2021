"""The configuration of a saved run: what the run is, without what was asked of it once.

`save/x/config.yaml`, and the one in each of its checkpoints, mean the run of that folder, wherever the folder was moved to.
Which weights a training started from, that it was resumed, that it replaced another: such keys are left out where a
configuration is saved, and dropped where one is read that an earlier version saved with them.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
WHOLE = {"run_type", "model", "task", "datasets", "training", "checkpoint", "env"}
ONCE = {"checkpoint": ("resume", "resume_file", "pretrained"), "env": ("overwrite",)}
NOT_ASKED = ("none", "null", "~", "", "false")  # as a file may have it
BESIDE_IT = (".lock", "log.jsonl", "checkpoints")  # a run's folder holds one of these, a checkpoint's has DIGESTS
DIGESTS = "digests.json"


def is_whole(values: Any) -> bool:
    """Whether a configuration file's content is a resolved one, as a run saves it, rather than somebody's recipe."""
    return isinstance(values, dict) and values.keys() >= WHOLE and "includes" not in values


def run_folder(file: Path) -> Path | None:
    """The folder of the run that `file` is the saved configuration of; None where it is somebody's own file."""
    folder = file.absolute().parent
    if file.name != CONFIG:
        return None
    if (folder / DIGESTS).exists() and folder.parent.name == "checkpoints":
        folder = folder.parent.parent
    elif not any((folder / name).exists() for name in BESIDE_IT):
        return None
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def settle(values: dict[str, Any], file: Path) -> None:
    """Where `file` is a saved run's, let its `values` mean that run: its folder, and nothing that was asked once."""
    folder = run_folder(file)
    is_copied = file.name == CONFIG and (file.parent / DIGESTS).exists()  # a checkpoint without its run
    if not is_whole(values) or not (folder or is_copied):
        return
    for key, value in take_once(values).items():
        if str(value).lower() not in NOT_ASKED:
            logger.info("%s: its %s=%s was asked once; to ask it again, give it on the command line", file, key, value)
    if folder is not None and isinstance(values.setdefault("env", {}), dict):
        values["env"]["save_dir"] = str(folder)


def take_once(values: dict[str, Any]) -> dict[str, Any]:
    """Remove from a configuration's `values` what was asked once. Returns it, by dotted key."""
    found: dict[str, Any] = {}
    for section, names in ONCE.items():
        node = values.get(section)
        if isinstance(node, dict):
            found |= {f"{section}.{name}": node.pop(name) for name in names if name in node}
    return found


def portable(values: dict[str, Any], folder: Path) -> None:
    """Make `env.user_dir` relative to `folder`, which the configuration is saved in, where both lie in the working folder.

    One below ~ stays so.
    """
    here, user_dir = Path.cwd(), (values.get("env") or {}).get("user_dir")
    if user_dir and not user_dir.startswith("~"):
        plugin, target = Path(user_dir).resolve(), folder.resolve()
        is_near = plugin.is_relative_to(here) and target.is_relative_to(here)
        values["env"]["user_dir"] = os.path.relpath(plugin, target) if is_near else str(plugin)


def differences(text: str, values: dict[str, Any]) -> list[str]:
    """Options of the model that a checkpoint's configuration, `text`, has otherwise than `values`; some show in no shape."""
    try:
        trained = yaml.safe_load(text)["model_config"][values["model"]]
    except (yaml.YAMLError, TypeError, KeyError):
        return []  # of MMF's, or another model's
    return list(_differences(trained, values["model_config"][values["model"]], f"model_config.{values['model']}"))


def _differences(trained: Any, now: Any, key: str) -> Iterator[str]:
    if isinstance(trained, dict) and isinstance(now, dict):
        for name in trained.keys() & now.keys() - {"weights"}:
            yield from _differences(trained[name], now[name], f"{key}.{name}")
    elif trained != now:
        yield f"{key}={now}, but {trained} when it was trained"
