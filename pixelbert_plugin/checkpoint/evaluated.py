"""What the evaluation of a checkpoint came to. It is saved before it is evaluated and never rewritten: this comes beside it,
as a file of its own with a digest of its own.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import replacing

NAME = "evaluated.json"
FIELDS = ("metrics", "best", "best_update", "evaluations_since_best", "is_evaluation_due")  # of the state of training


def write(folder: Path, state: dict[str, Any]) -> None:
    """Record it whole or not at all. Raises OSError."""
    found = {name: state[name] for name in FIELDS}
    with replacing(folder / NAME) as aside:
        aside.write_text(json.dumps({"state": found, "sha256": _digest(found)}), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The fields of the state after the evaluation; {} where there was none. Raises ValueError where they were altered."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        found, digest = content["state"], content["sha256"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{NAME} cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(found, dict) or set(found) != set(FIELDS) or digest != _digest(found):
        raise ValueError(f"{NAME} is not as it was written (SHA-256 differs)")
    return found


def _digest(found: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
