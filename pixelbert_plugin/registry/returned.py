"""What a component's methods return, looked at once where it is first used: a wrong type is told with the component and method,
rather than found in the midst of a computation that knows neither."""

import json
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.registry import location
from pixelbert_plugin.types import Batch, ExplanationMap, PixelFeatures, Result


class Told(str):
    """What was found, in words already."""


def require(is_right: bool, component: Any, method: str, wanted: str, found: Any) -> None:
    """Raise UserError unless `is_right`: the component's `method` must return what is `wanted`."""
    if not is_right:
        what = found if isinstance(found, Told) else reprlib.repr(found)
        if isinstance(found, Tensor):
            what = f"a tensor of shape {tuple(found.shape)}, {found.dtype}"
        raise UserError(
            f"{type(component).__name__} ({location(type(component))}): {method} must return {wanted}, not {what}; "
            "docs/extending.md lists what each kind of component must have"
        )


def heads(task: Any) -> None:
    found = task.heads()
    is_right = isinstance(found, dict) and all(isinstance(k, str) and type(v) is int and v > 0 for k, v in found.items())
    require(is_right, task, "heads()", "a dict of each head's number of outputs by its name", found)


def asked(task: Any, name: str, found: Any, shape: tuple[int, ...]) -> None:
    """Of what it can be asked by this name, what it made of the logits of a forward."""
    is_right = isinstance(found, Tensor) and found.is_floating_point() and tuple(found.shape) == shape
    require(is_right, task, f"asked()[{name!r}](logits)", f"a float tensor of shape {shape}", found)


def explanation(method: Any, found: Any, images: int, words: int) -> None:
    """Of a method of explaining, its maps of so many images and words."""
    wanted = f"a list of {images} ExplanationMap, `answer` float32 of rows × columns, `words` None or {words} of these, finite"
    is_right = isinstance(found, list | tuple) and len(found) == images
    for each in found if is_right else ():
        is_right = is_right and isinstance(each, ExplanationMap) and _is_grid(each.answer, 2)
        is_right = is_right and (each.words is None or (_is_grid(each.words, 3) and len(each.words) == words))
    require(is_right, method, "__call__(given)", wanted, found)


def _is_grid(found: Any, dimensions: int) -> bool:
    is_float = isinstance(found, Tensor) and found.is_floating_point() and found.device.type == "cpu"
    return is_float and found.dim() == dimensions and found.numel() > 0 and bool(found.isfinite().all())


def text(processor: Any, example: str) -> None:
    """Also what it must have for masked words, where it has that."""
    found = processor(example)
    is_pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], list | tuple) and type(found[1]) is bool
    is_right = is_pair and all(isinstance(token, int | np.integer) for token in found[0])
    require(is_right, processor, "__call__(text)", "(a list of token ids, whether the text was cut)", found)
    wrong = [token for token in found[0] if not 0 <= token < processor.vocab_size]
    wanted = f"ids of 0…{processor.vocab_size - 1}, below its vocab_size"
    require(not wrong and len(found[0]) > 0, processor, "__call__(text)", wanted, found[0])


def pieces(processor: Any) -> tuple[np.ndarray, np.ndarray]:
    found = processor.pieces()
    is_right = isinstance(found, tuple) and len(found) == 2
    is_right = is_right and all(isinstance(part, np.ndarray) and part.dtype == bool for part in found)
    is_right = is_right and {part.shape for part in found} == {(processor.vocab_size,)}
    wanted = (
        "two numpy arrays of bool, one value for each entry of the vocabulary: is it a word or a piece, does it continue one"
    )
    require(is_right, processor, "pieces()", wanted, found)
    return found


def state(processor: Any) -> None:
    found = processor.state_dict()
    try:
        json.dumps(found)
        is_right = isinstance(found, dict)
    except (TypeError, ValueError):
        is_right = False
    require(is_right, processor, "state_dict()", "a dict that JSON can hold: lists, dicts, texts, numbers", found)


def losses(task: Any, found: Any, counts: Any) -> None:
    """Of one batch."""
    wanted = "a dict of scalar tensors by part of the loss, each the sum over the batch"
    for method, parts in (("loss(output, batch)", found), ("counts(batch)", counts)):
        is_right = isinstance(parts, dict) and bool(parts)
        is_right = is_right and all(isinstance(value, Tensor) and value.numel() == 1 for value in parts.values())
        require(
            is_right, task, method, wanted if method.startswith("loss") else wanted.replace("sum", "number of its terms"), parts
        )
    require(found.keys() == counts.keys(), task, "counts(batch)", f"the parts that loss has, {sorted(found)}", sorted(counts))


def results(task: Any, found: Any, batch: Batch) -> None:
    is_right = isinstance(found, list) and len(found) == len(batch) and all(isinstance(result, Result) for result in found)
    require(is_right, task, "predict(output, batch)", f"a list of {len(batch)} Result, one for each sample", found)


def predictions(task: Any, found: Any) -> None:
    is_right = isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, str) for part in found)
    require(is_right, task, "predictions(results)", "(a file's suffix, its text), two str", found)


def description(precision: Any) -> None:
    found = precision.description
    is_right = isinstance(found, Mapping) and all(isinstance(part, str) for pair in found.items() for part in pair)
    require(is_right, precision, "description", "a dict of texts by name", found)


def autocast(precision: Any) -> None:
    found = precision.autocast()
    require(hasattr(found, "__enter__") and hasattr(found, "__exit__"), precision, "autocast()", "a context manager", found)


def pixel_features(encoder: Any, found: Any, images: int, channels: int) -> None:
    """Cheap enough for each forward: nothing is read from a GPU."""
    require(isinstance(found, PixelFeatures), encoder, "forward(images, sizes)", "PixelFeatures", found)
    pixels, mask, (rows, columns) = found.pixels, found.mask, found.grid
    shape = (images, rows * columns, channels)
    if pixels.shape == shape and mask.shape == shape[:2] and mask.dtype == torch.bool:
        return
    wanted = f"pixels of shape {shape}, images × rows · columns × out_channels, and a bool mask of shape {shape[:2]}"
    told = f"pixels {tuple(pixels.shape)}, mask {tuple(mask.shape)} of {mask.dtype}, grid {found.grid}"
    require(False, encoder, "forward(images, sizes)", wanted, Told(told))
