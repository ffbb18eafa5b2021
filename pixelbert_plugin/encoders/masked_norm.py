"""Batch norms that make padding invisible. I images, C channels, h w resolution.

In a zero-padded batch a convolution near an image's edge must see zeros beyond it, as it would for the image alone.
Batch norm's bias breaks that. These norms put the zeros back, and in training leave padding out of the batch
statistics. In torchvision's ResNets every spatial convolution reads what a norm has written (through ReLU, addition
and, once, the stem's max pooling, which the encoder masks), so masking here is masking before every spatial operation.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from pixelbert_plugin.errors import UserError


class ValidArea:
    """The images' own areas at every resolution of a ResNet: after each stride of 2, ⌈size / 2⌉ (kernel 2p + 1)."""

    def __init__(self, norm_key: str = "norm") -> None:
        """`norm_key`: the configuration's key of the kind of norm, for errors."""
        self.norm_key = norm_key
        self._sizes_I2: Tensor | None = None  # at the resolution last asked for, on the device
        self._resolution = (1, 1)
        self._masks: dict[tuple[int, int], Tensor] = {}

    def set(self, sizes_I2: Tensor, padded: tuple[int, int], device: torch.device) -> None:
        """Start a batch of images of these heights and widths (on the CPU: no device sync), padded to `padded`."""
        has_padding = bool((sizes_I2 != torch.tensor(padded)).any())
        self._sizes_I2 = sizes_I2.to(device, non_blocking=True) if has_padding else None
        self._resolution, self._masks = padded, {}

    def mask(self, resolution: tuple[int, int]) -> Tensor | None:
        """I 1 h w bool, True inside the images; None where nothing is padded. Resolutions are asked for in descending order."""
        if self._sizes_I2 is None:
            return None
        if resolution not in self._masks:
            while self._resolution != resolution:
                if self._resolution == (1, 1):
                    raise ValueError(f"no stride of 2 leads to the resolution {resolution}")
                self._sizes_I2 = (self._sizes_I2 + 1) // 2
                height, width = self._resolution
                self._resolution = (height + 1) // 2, (width + 1) // 2
            self._masks[resolution] = inside_mask(self._sizes_I2, resolution)[:, None]
        return self._masks[resolution]

    def clear(self, values: Tensor) -> Tensor:
        """`values` I C h w with zeros at padding."""
        mask = self.mask((values.shape[-2], values.shape[-1]))
        return values if mask is None else values * mask


def inside_mask(sizes_I2: Tensor, resolution: tuple[int, int]) -> Tensor:
    """I h w bool, True at the first sizes_I2[:, 0] rows and sizes_I2[:, 1] columns."""
    rows = torch.arange(resolution[0], device=sizes_I2.device) < sizes_I2[:, :1]
    columns = torch.arange(resolution[1], device=sizes_I2.device) < sizes_I2[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


class MaskedBatchNorm2d(nn.BatchNorm2d):
    """Trainable batch norm over the images' own pixels."""

    running_mean: Tensor  # torch's own may be without
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, area: ValidArea):
        super().__init__(channels)
        self.area = area

    def forward(self, values: Tensor) -> Tensor:
        mask = self.area.mask((values.shape[-2], values.shape[-1]))
        if mask is None and self.training and values.numel() == values.shape[1]:
            raise UserError(
                "processors.image.params.short_edge: batch norm cannot be trained on the single pixel that is left of a "
                "micro-batch's only image; use larger images, a larger training.micro_batch_size, or "
                f"{self.area.norm_key}=frozen"
            )
        if mask is None or not self.training:
            return self.area.clear(super().forward(values))
        # float32 sums: under autocast the activations are bfloat16
        weights = mask.to(torch.float32)
        count = weights.sum()
        mean_C = (values.float() * weights).sum((0, 2, 3)) / count
        centred = values.float() - mean_C[:, None, None]
        variance_C = (centred.square() * weights).sum((0, 2, 3)) / count
        with torch.no_grad():  # the running variance is unbiased, as torch's own
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
            unbiased = variance_C * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        return ((centred * scale_C[:, None, None] + self.bias[:, None, None]) * weights).to(values.dtype)


class MaskedFrozenBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision has no types
    """Batch norm with fixed statistics, scale and bias (detection's habit for small batches)."""

    def __init__(self, channels: int, area: ValidArea):
        super().__init__(channels)
        self.area = area

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """C float32 each: what the norm multiplies by and adds, which is all that it does."""
        # float32 whatever the statistics' type: float16 holds no variance above 65504, and an eps only in part
        scale_C = self.weight.float() * (self.running_var.float() + self.eps).rsqrt()
        return scale_C, self.bias.float() - self.running_mean.float() * scale_C

    def forward(self, values: Tensor) -> Tensor:
        scale_C, shift_C = (each.to(values.dtype) for each in self.scale_and_shift())
        return self.area.clear(values * scale_C[:, None, None] + shift_C[:, None, None])


class MaskedSyncBatchNorm(nn.SyncBatchNorm):
    """Batch norm over all processes; raises UserError without CUDA. Its statistics count padding as zeros: bucket by size."""

    def __init__(self, channels: int, area: ValidArea):
        super().__init__(channels)
        self.area = area

    def forward(self, values: Tensor) -> Tensor:
        if not values.is_cuda:
            raise UserError(f"{self.area.norm_key}='sync': needs CUDA; use trainable or frozen")
        return self.area.clear(super().forward(values))


NORMS = {"trainable": MaskedBatchNorm2d, "frozen": MaskedFrozenBatchNorm2d, "sync": MaskedSyncBatchNorm}
