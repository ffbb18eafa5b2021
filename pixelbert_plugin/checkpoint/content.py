"""What a checkpoint or an exported file says beside its tensors, as JSON: checked before anything makes use of it."""

import json
from typing import Any

from pixelbert_plugin.checkpoint.checkpoints import TrainState

# the members and what is in them; an earlier version wrote fewer
SHAPES: dict[str, tuple[type, Any]] = {
    "processors": (dict, dict),
    "optimizers": (dict, str),
    "precision": (dict, dict),
    "versions": (dict, str),
    "started_from": (list, dict),
    "data": (dict, dict),
    "portable": (dict, dict),
    "model_options": (dict, object),  # by key below model_config.<model>: what a file of others needs of the model
}


def parse(text: str) -> dict[str, Any]:
    """The content in a JSON text. Raises ValueError, in one line, where it is another's or not whole."""
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode()  # half a character could be read, but not saved again
        check(content)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return content


def check(content: Any) -> None:
    """Raises KeyError, TypeError or ValueError where a member is of another shape."""
    if not isinstance(content, dict):
        raise TypeError(f"is a {type(content).__name__}, not an object")
    _check_state(TrainState.read(content))
    for name, (kind, inner) in SHAPES.items():
        value = content.get(name, kind())
        items = value.values() if isinstance(value, dict) else value
        if not isinstance(value, kind) or not all(isinstance(item, inner) for item in items):
            raise ValueError(f"{name} is {value!r:.80}, of another type")
    if not all({"key", "path", "update"} <= set(source) for source in content.get("started_from", [])):
        raise ValueError("started_from has an entry without key, path and update")
    scale = content.get("precision", {}).get("state", {})
    if not all(_is_number(value) for value in scale.values()):
        raise ValueError(f"precision.state is {scale!r:.80}, of another type")
    if not isinstance(content.get("config", ""), str):
        raise ValueError(f"config is {content['config']!r:.80}, not a text")


def _check_state(state: TrainState) -> None:
    whole = {name: getattr(state, name) for name in ("update", "samples", "evaluations_since_best", "best_update")}
    numbers = {"seconds": state.seconds, "best": state.best, **whole}
    for name, value in numbers.items():
        is_kind = type(value) is int if name in whole else _is_number(value)
        is_free = name == "best"  # a metric may be below 0
        if value is not None and not (is_kind and (is_free or 0 <= value < 2**63)):
            raise ValueError(f"state.{name} is {value!r:.80}, which it cannot be")
    for name in ("metrics", "skipped_images"):
        found = getattr(state, name)
        if not isinstance(found, dict) or not all(_is_number(value) for value in found.values()):
            raise ValueError(f"state.{name} is {found!r:.80}, of another type")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
