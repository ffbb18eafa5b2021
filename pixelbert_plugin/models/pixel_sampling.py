"""Pixel random sampling (paper, section 3.3). I images, P pixels of the grid (rows × columns), K kept.

in: mask_IP bool, seeds_I int64; out: index_IK int64 (ascending), kept_IK bool.
"""

import torch
from torch import Tensor


def sample_pixels(mask_IP: Tensor, seeds_I: Tensor, num_sampled_pixels: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Draw `num_sampled_pixels` distinct valid pixels of each image, uniformly; all of them where there are fewer.

    The draw is a function of the image's seed alone, so it is the same on any device, in any batch (whatever its grid was
    padded to) and after a resume.
    Returns the kept pixels' indices, and False in the mask where an image had fewer valid pixels than K.
    """
    pixels, columns = mask_IP.shape[1], grid[1]
    index_P = torch.arange(pixels, device=mask_IP.device)
    place_P = (index_P // columns << 16) + index_P % columns  # unlike the index, the same in a wider grid
    keys_IP = hash_int64(seeds_I[:, None] + _GOLDEN * place_P)
    keys_IP = (keys_IP >> 2).masked_fill(~mask_IP, torch.iinfo(torch.int64).max)  # >> 2: below the fill in any case
    chosen_IK = keys_IP.argsort(dim=1, stable=True)[:, : min(num_sampled_pixels, pixels)]
    index_IK = chosen_IK.sort(dim=1).values
    return index_IK, mask_IP.gather(1, index_IK)


_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, odd, as int64: SplitMix64's increment


def hash_int64(values: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014) on int64: a bijection whose output bits look independent."""
    values = (values ^ _shift_right(values, 30)) * -4658895280553007687
    values = (values ^ _shift_right(values, 27)) * -7723592293110705685
    return values ^ _shift_right(values, 31)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical shift: int64 tensors shift arithmetically, so the sign bits that came in are masked away."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
