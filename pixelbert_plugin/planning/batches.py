"""A micro-batch of the right shapes that means nothing. B samples, R texts, L tokens, N images per text, I images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pixelbert_plugin.data.collate import pad_texts
from pixelbert_plugin.data.loaders import prepare
from pixelbert_plugin.interfaces import LearnedTask
from pixelbert_plugin.types import Batch, Sample


@dataclass(frozen=True)
class Shape:
    """What a micro-batch is like."""

    samples: int
    groups: int  # runs of samples that share their images
    tokens: int  # of every text
    size: tuple[int, int]  # height and width of every image in pixels, after resizing


def make(task: LearnedTask, text: Any, shape: Shape, with_negatives: bool = True) -> Batch:
    """The batch but for its images' pixels, on the CPU: the task sets its targets, as a data-loader worker lets it do."""
    images_per_text = task.images_per_sample or 1
    texts = 1 + (task.num_negatives if with_negatives else 0)
    groups = min(shape.groups, shape.samples)
    words = [[text.vocab_size - 1] * shape.tokens] * (shape.samples * texts)
    input_ids_RL, text_mask_RL = pad_texts(words, text.pad_token_id)
    group_B = torch.arange(shape.samples) * groups // shape.samples
    index_BN = group_B[:, None] * images_per_text + torch.arange(images_per_text)
    images = groups * images_per_text
    samples = [
        Sample(
            sample_id=number,
            image_ids=tuple(row),
            images=tuple(Path(f"{image}") for image in row),
            text="",
        )
        for number, row in enumerate(index_BN.tolist())
    ]
    batch = Batch(
        sample_ids=[sample.sample_id for sample in samples],
        input_ids=input_ids_RL,
        text_mask=text_mask_RL,
        images=[],
        image_sizes=torch.tensor([shape.size] * images),
        image_index=index_BN.repeat_interleave(texts, dim=0),
        image_seeds=torch.zeros(images, dtype=torch.int64),
        weights=torch.ones(shape.samples),
        samples=samples,
    )
    prepare(task, batch, list(range(shape.samples)))
    return batch


def without_data(batch: Batch, size: tuple[int, int], device: torch.device) -> Batch:
    """The batch as the model takes it, on a device that need not be there; call it in DryRun.building. The images' sizes stay
    real, on the CPU, where the model looks at them."""
    sizes = batch.image_sizes
    made = batch.map(lambda value: torch.empty(value.shape, dtype=value.dtype, device=device))
    made.images = torch.empty(len(batch.image_seeds), 3, *size, device=device)
    made.image_sizes, made.samples = sizes, []
    return made
