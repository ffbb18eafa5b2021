"""Samples → Batch: dynamic padding of texts, each image once. B texts, L tokens, N images per text, I images."""

import torch
from torch import Tensor

from pixelbert_plugin.types import Batch, Sample


def collate(
    samples: list[Sample],
    token_ids: list[list[int]],
    image_keys: list[list[tuple]],
    images: dict[tuple, Tensor],
    image_seeds: dict[tuple, int],
    weights: list[float],
    pad_token_id: int,
    num_truncated: int,
) -> Batch:
    """`image_keys`: B × N keys into `images` and `image_seeds`, whose order is the batch's order of images."""
    longest = max(map(len, token_ids))
    input_ids_BL = torch.full((len(samples), longest), pad_token_id, dtype=torch.int64)
    for row, ids in enumerate(token_ids):
        input_ids_BL[row, : len(ids)] = torch.tensor(ids)
    lengths_B = torch.tensor([len(ids) for ids in token_ids])
    place = {key: index for index, key in enumerate(images)}
    return Batch(
        sample_ids=[sample.sample_id for sample in samples],
        input_ids=input_ids_BL,
        text_mask=torch.arange(longest) < lengths_B[:, None],
        images=list(images.values()),
        image_index=torch.tensor([[place[key] for key in keys] for keys in image_keys]),
        image_seeds=torch.tensor([image_seeds[key] for key in images]),
        weights=torch.tensor(weights),
        samples=samples,
        num_truncated=num_truncated,
    )
