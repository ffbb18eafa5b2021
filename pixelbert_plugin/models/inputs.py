"""The model's input from plain tensors, by the names that transformers has for them: what programs call that have no data sets.

R texts, L tokens, I images, N = I / R of them to each text, H W the padded height and width.
"""

import torch
from torch import Tensor

from pixelbert_plugin.types import Batch


def batch_of(
    input_ids_RL: Tensor,
    attention_mask_RL: Tensor | None,
    pixel_values: Tensor,
    pixel_mask: Tensor | None = None,
    image_index_RN: Tensor | None = None,
    image_seeds_I: Tensor | None = None,
) -> Batch:
    """A batch as the model takes it, its R texts its samples.

    `attention_mask`: not 0 at tokens; None: everywhere. `pixel_values`: I 3 H W float as the image processor gives them, or
    R N 3 H W. `pixel_mask`: I H W (or R N H W), not 0 at an image's own pixels, which lie above and left; None: everywhere.
    `image_index`: which images each text is put to; None: image n to text n, or images 2n and 2n + 1, and so on. `image_seeds`
    drive pixel sampling. Raises ValueError, which begins with the argument's name, where texts and images do not fit.
    """
    if pixel_values.dim() == 5:
        pixel_values = pixel_values.flatten(0, 1)
        pixel_mask = None if pixel_mask is None else pixel_mask.flatten(0, 1)
    texts, images = input_ids_RL.shape[0], pixel_values.shape[0]
    device = input_ids_RL.device
    if image_index_RN is None:
        if not images or images % texts:
            raise ValueError(
                f"pixel_values: {images} images do not divide among {texts} texts; image_index says which go to which"
            )
        image_index_RN = torch.arange(images, device=device).view(texts, -1)
    return Batch(
        sample_ids=[],
        input_ids=input_ids_RL,
        text_mask=torch.ones_like(input_ids_RL, dtype=torch.bool) if attention_mask_RL is None else attention_mask_RL != 0,
        images=pixel_values,
        image_sizes=sizes_of(pixel_values, pixel_mask),
        image_index=image_index_RN,
        image_seeds=torch.zeros(images, dtype=torch.int64, device=device) if image_seeds_I is None else image_seeds_I,
        weights=torch.ones(texts, device=device),
    )


def sizes_of(pixel_values_I3HW: Tensor, pixel_mask_IHW: Tensor | None) -> Tensor:
    """I 2 int64 on the CPU: height and width of each image before padding."""
    if pixel_mask_IHW is None:
        return torch.tensor(pixel_values_I3HW.shape[-2:]).expand(len(pixel_values_I3HW), 2)
    is_own = pixel_mask_IHW != 0
    return torch.stack([is_own.any(2).sum(1), is_own.any(1).sum(1)], dim=1).cpu()
