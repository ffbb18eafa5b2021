"""Pictures in their own light: as they are where a map is large, darker where it is less. H W pixels."""

import torch
from torch import Tensor

DARKEST = 0.25  # of its own light, where the share is 0


def in_light(picture_3HW: Tensor, share_HW: Tensor) -> Tensor:
    """3 H W uint8: the picture, each pixel by its share of 0…1."""
    return (picture_3HW * (DARKEST + (1 - DARKEST) * share_HW)).round().clamp(0, 255).to(torch.uint8)
