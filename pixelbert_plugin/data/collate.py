"""Samples → Batch: dynamic padding of texts, each image once. B samples, R texts, L tokens, J of them read,
N images per text, I images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin.types import Batch, Sample

ImageKey = tuple[int | str, ...]  # what an image of a batch is known by, see `reader.Images`


def collate(
    samples: list[Sample],
    token_ids: list[list[int]],
    image_keys: list[list[ImageKey]],
    images: dict[ImageKey, Tensor],
    image_seeds: dict[ImageKey, int],
    weights: list[float],
    pad_token_id: int,
) -> Batch:
    """`token_ids`: R texts, R / B of each sample; none where only images are wanted. `image_keys`: B × N keys into `images`
    and `image_seeds`, whose order is the batch's order of images."""
    input_ids_RL, text_mask_RL = pad_texts(token_ids, pad_token_id)
    place = {key: index for index, key in enumerate(images)}
    image_index_BN = torch.tensor([[place[key] for key in keys] for keys in image_keys])
    return Batch(
        sample_ids=[sample.sample_id for sample in samples],
        input_ids=input_ids_RL,
        text_mask=text_mask_RL,
        images=list(images.values()),
        image_index=image_index_BN.repeat_interleave(len(token_ids) // len(samples), dim=0),
        image_seeds=torch.tensor([image_seeds[key] for key in images]),
        weights=torch.tensor(weights),
        samples=samples,
    )


def read_positions(batch: Batch) -> Tensor:
    """R J int64: of each text's words those whose last hidden states heads read, [CLS] first, then those of `mlm_positions`;
    rows are filled up with [CLS]."""
    texts, length = batch.input_ids.shape
    is_masked_RL = torch.zeros(texts, length, dtype=torch.bool)
    if (positions_M := batch.targets.get("mlm_positions")) is not None:
        is_masked_RL.view(-1)[positions_M] = True
    most = int(is_masked_RL.sum(1).max())
    places_RJ = is_masked_RL.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return F.pad(places_RJ.where(is_masked_RL.gather(1, places_RJ), 0), (1, 0))


def pad_texts(token_ids: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """R L int64, each row padded to the longest, and R L bool, True at tokens."""
    longest = max(map(len, token_ids), default=0)
    input_ids_RL = torch.full((len(token_ids), longest), pad_token_id, dtype=torch.int64)
    for row, ids in enumerate(token_ids):
        input_ids_RL[row, : len(ids)] = torch.tensor(ids)
    lengths_R = torch.tensor([len(ids) for ids in token_ids], dtype=torch.int64)
    return input_ids_RL, torch.arange(longest) < lengths_R[:, None]
