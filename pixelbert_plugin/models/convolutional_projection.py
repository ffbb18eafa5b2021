"""ClipBERT's way from a CNN's last feature map to the transformer's width (src/modeling/grid_feat.py, `grid_encoder`).

I images, P pixels of the grid (rows · columns), C channels, D hidden size. in and out: PixelFeatures, out of half the grid.
"""

from torch import Tensor, nn

from pixelbert_plugin.types import PixelFeatures


class ConvolutionalProjection(nn.Module):
    """A 3×3 convolution C → D without bias, 2×2 max pooling with stride 2, ReLU.

    An odd last row or column is dropped, unless it is the only one; each image's pixels are those that it would have alone.
    """

    def __init__(self, channels: int, hidden_size: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, hidden_size, 3, padding=1, bias=False)

    def forward(self, features: PixelFeatures) -> PixelFeatures:
        mask_I1hw = features.mask.unflatten(1, features.grid)[:, None]
        values = features.pixels.transpose(1, 2).unflatten(2, features.grid)
        # ReLU first, which commutes with the maximum: then zeros at padding never win
        values = self.convolution(values).relu() * mask_I1hw
        rows, columns = (max(1, size // 2) for size in features.grid)
        values = nn.functional.max_pool2d(values, 2, ceil_mode=True)[..., :rows, :columns]
        mask_Ihw = self._pooled(mask_I1hw, rows, columns)
        pixels = (values * mask_Ihw[:, None]).flatten(2).transpose(1, 2)
        return PixelFeatures(pixels=pixels, mask=mask_Ihw.flatten(1), grid=(rows, columns))

    def _pooled(self, mask_I1hw: Tensor, rows: int, columns: int) -> Tensor:
        """I rows columns bool: whether a pixel is made of an image's own, ⌊n / 2⌋ of n and at least one."""
        own_rows, own_columns = mask_I1hw[:, 0].any(2).sum(1), mask_I1hw[:, 0].any(1).sum(1)
        counts = ((own_rows // 2).clamp(min=1), (own_columns // 2).clamp(min=1))
        places = (mask_I1hw.new_ones(size).cumsum(0) - 1 for size in (rows, columns))
        row_mask, column_mask = (place < count[:, None] for place, count in zip(places, counts, strict=True))
        return row_mask[:, :, None] & column_mask[:, None, :]
