"""Processors as MMF's: a dict in, a dict out. L tokens up to max_length, A answers."""

from pathlib import Path
from typing import Any

import torch
from mmf.datasets.processors.processors import BaseProcessor

from pixelbert_plugin import registry
from pixelbert_plugin.interfaces import AnswersProcessor, ImageProcessor, TextProcessor
from pixelbert_plugin.mmf.nodes import plain
from pixelbert_plugin.registry import contracts

MMF_KEYS = {"data_dir"}  # what MMF adds to a processor's options


class MmfProcessor(BaseProcessor):
    """One of our processors; the options are its own."""

    own = ""  # set by `wrap_processor`

    def __init__(self, config: Any = None, *args: Any, **kwargs: Any):
        super().__init__(config)
        options = {key: value for key, value in plain(config).items() if key not in MMF_KEYS}
        self.processor = registry.build("processor", self.own, options, f"processor.{self.own}")


class MmfTextProcessor(MmfProcessor):
    def __call__(self, item: dict[str, Any] | str, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """`text` → `input_ids` and `segment_ids` L int64, `input_mask` L int64; padded to max_length. `text`: the ids too."""
        text = item if isinstance(item, str) else item["text"]
        ids, _ = self.processor(text)
        length = self.processor.max_length or len(ids)
        padded = torch.full((length,), self.processor.pad_token_id)
        padded[: len(ids)] = torch.tensor(ids)
        mask = (torch.arange(length) < len(ids)).long()
        return {"text": padded, "input_ids": padded, "input_mask": mask, "segment_ids": torch.zeros_like(padded)}


class MmfImageProcessor(MmfProcessor):
    def __call__(self, item: dict[str, Any] | str | Path, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """A path, or `image` with one or a uint8 3 h w tensor → `image` 3 H W float, resized and normalised."""
        image = item["image"] if isinstance(item, dict) else item
        pixels = image if isinstance(image, torch.Tensor) else self.processor.decode(Path(image))
        images_I3HW, _ = self.processor(pixels)
        return {"image": images_I3HW[0]}


class MmfAnswerProcessor(MmfProcessor):
    """`fit` the wrapped processor with the training answers first, or give it a state."""

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """`answers`, the annotators' → `answers_scores` A float32, their soft scores."""
        return {"answers": list(item["answers"]), "answers_scores": self.processor.scores(tuple(item["answers"]))}


WRAPPERS: dict[type, type[MmfProcessor]] = {
    TextProcessor: MmfTextProcessor,
    ImageProcessor: MmfImageProcessor,
    AnswersProcessor: MmfAnswerProcessor,
}


def wrap_processor(own: str, name: str) -> type[MmfProcessor]:
    """A processor of MMF's around ours, to be registered as `name`."""
    base = WRAPPERS[contracts.use_of("processor", registry.get("processor", own)).contract]
    return type(f"Mmf_{own}", (base,), {"own": own, "__doc__": f"{own} of pixelbert_plugin, for MMF."})
