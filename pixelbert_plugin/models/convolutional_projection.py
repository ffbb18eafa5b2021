"""ClipBERT's way from a CNN's last feature map to the transformer's width (src/modeling/grid_feat.py, `grid_encoder`).

I images, P pixels of the grid (rows · columns), C channels, D hidden size. in and out: PixelFeatures, out of half the grid.
"""

import torch
from torch import nn

from pixelbert_plugin.encoders.masked_norm import inside_mask
from pixelbert_plugin.encoders.resnet import pool_pixels
from pixelbert_plugin.types import PixelFeatures


class ConvolutionalProjection(nn.Module):
    """A 3×3 convolution C → D without bias, 2×2 max pooling with stride 2, ReLU.

    An odd last row or column is dropped, unless it is the only one; each image's pixels are those that it would have alone.
    """

    def __init__(self, channels: int, hidden_size: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, hidden_size, 3, padding=1, bias=False)

    def forward(self, features: PixelFeatures) -> PixelFeatures:
        own_Ihw = features.mask.unflatten(1, features.grid)
        values = features.pixels.transpose(1, 2).unflatten(2, features.grid)
        # ReLU first, which commutes with the maximum: then zeros at padding never win
        values = pool_pixels(self.convolution(values).relu() * own_Ihw[:, None])
        rows, columns = values.shape[-2:]
        own_sizes_I2 = torch.stack([own_Ihw.any(2).sum(1), own_Ihw.any(1).sum(1)], dim=1)
        mask_IP = inside_mask((own_sizes_I2 // 2).clamp(min=1), (rows, columns)).flatten(1)
        return PixelFeatures(pixels=values.flatten(2).transpose(1, 2) * mask_IP[..., None], mask=mask_IP, grid=(rows, columns))
