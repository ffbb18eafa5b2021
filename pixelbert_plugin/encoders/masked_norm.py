"""Batch norms that make padding invisible. I images, C channels, h w resolution.

In a zero-padded batch a convolution near an image's edge must see zeros beyond it, as it would for the image alone.
Batch norm's bias breaks that. These norms put the zeros back, and in training leave padding out of the batch
statistics. In torchvision's ResNets every spatial convolution reads what a norm has written (through ReLU, addition
and, once, the stem's max pooling, which the encoder masks), so masking here is masking before every spatial operation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torchvision.ops import FrozenBatchNorm2d

from pixelbert_plugin.errors import UserError

MAX_STRIDES = 5  # of 2, from an image to a ResNet's last features


@dataclass(frozen=True)
class Padding:
    """Where a batch is padding, at one resolution. P of its pixels are."""

    sizes: list[tuple[int, int]]  # height and width of each image
    resolution: tuple[int, int]
    own: int  # pixels of all images
    all: int  # pixels of the batch, own ones and padding
    places: tuple[Tensor, Tensor, Tensor] | None  # on a GPU: P int64 each, image, row and column of every padded pixel

    def fill_(self, values_IChw: Tensor, fill: Tensor | float) -> None:
        """Write `fill`, a number or C of them, at padding, in place."""
        if self.places is not None:  # one kernel, however many images
            images, rows, columns = self.places
            filling = fill.to(values_IChw.dtype) if isinstance(fill, Tensor) else fill
            values_IChw.permute(0, 2, 3, 1)[images, rows, columns] = filling
            return
        values_C11 = fill[:, None, None] if isinstance(fill, Tensor) else fill
        for part in self._parts(values_IChw):
            part[...] = values_C11

    def sum(self, values_IChw: Tensor) -> Tensor:
        """C: the sum over padding."""
        exact = torch.promote_types(values_IChw.dtype, torch.float32)
        if self.places is not None:
            images, rows, columns = self.places
            return values_IChw.permute(0, 2, 3, 1)[images, rows, columns].sum(0, dtype=exact)
        total_C = torch.zeros(values_IChw.shape[1], dtype=exact)
        for part in self._parts(values_IChw):
            total_C += part.sum((1, 2), dtype=exact)
        return total_C

    def _parts(self, values_IChw: Tensor) -> Iterator[Tensor]:
        for (height, width), image_Chw in zip(self.sizes, values_IChw, strict=True):
            if height < self.resolution[0]:
                yield image_Chw[:, height:]
            if width < self.resolution[1]:
                yield image_Chw[:, :height, width:]


class ValidArea:
    """The images' own areas at every resolution of a ResNet: after each stride of 2, ⌈size / 2⌉ (kernel 2p + 1)."""

    def __init__(self, norm_key: str = "norm") -> None:
        """`norm_key`: the configuration's key of the kind of norm, for errors."""
        self.norm_key = norm_key
        self._sizes_I2: Tensor | None = None  # at the resolution last asked for; None where nothing is padded
        self._resolution, self._device = (1, 1), torch.device("cpu")
        self._sizes: dict[tuple[int, int], Tensor] = {}
        self._paddings: dict[tuple[int, int], Padding | None] = {}
        self._is_traced = False
        self._insides: dict[tuple[int, int], Tensor] = {}

    def set(self, sizes_I2: Tensor, padded: tuple[int, int], device: torch.device) -> None:
        """Start a batch of images of these heights and widths (on the CPU: no device sync), padded to `padded`."""
        self._is_traced = torch.compiler.is_exporting()  # then no number is read from a tensor, nor asked of a size
        if self._is_traced:
            self._sizes_I2, self._resolution, self._device = sizes_I2, padded, device
            return
        has_padding = bool((sizes_I2 != torch.tensor(padded)).any())
        self._sizes_I2, self._resolution, self._device = sizes_I2 if has_padding else None, padded, device
        self._sizes, self._paddings, self._insides = {}, {}, {}

    def padding(self, resolution: tuple[int, int]) -> Padding | None:
        """Where padding is; None where nothing is padded. Resolutions are asked for in descending order."""
        if self._sizes_I2 is None:
            return None
        if resolution not in self._paddings:
            self._paddings[resolution] = find_padding(self._sizes_at(resolution, self._sizes_I2), resolution, self._device)
        return self._paddings[resolution]

    def inside(self, resolution: tuple[int, int]) -> Tensor | None:
        """I 1 h w bool, True at the images' own pixels; None where nothing is padded at any resolution. Asked for likewise."""
        if self._sizes_I2 is None:
            return None
        if resolution not in self._insides:
            sizes_I2 = self._sizes_at(resolution, self._sizes_I2).to(self._device, non_blocking=True)
            self._insides[resolution] = inside_mask(sizes_I2, resolution)[:, None]
        return self._insides[resolution]

    def _sizes_at(self, resolution: tuple[int, int], sizes_I2: Tensor) -> Tensor:
        """I 2: the images' sizes at a resolution. `sizes_I2`: those at the last one."""
        if resolution not in self._sizes:
            while self._resolution != resolution:
                if self._resolution == (1, 1):
                    raise ValueError(f"no stride of 2 leads to the resolution {resolution}")
                sizes_I2 = (sizes_I2 + 1) // 2
                height, width = self._resolution
                self._resolution = (height + 1) // 2, (width + 1) // 2
            self._sizes[resolution] = self._sizes_I2 = sizes_I2
        return self._sizes[resolution]

    def clear(self, values: Tensor) -> Tensor:
        """`values` I C h w, with zeros at padding: written where they are. No backward pass may need what stood there."""
        resolution = (values.shape[-2], values.shape[-1])
        if self._is_traced:
            return torch.where(inside_mask(self._traced_sizes(resolution), resolution)[:, None], values, 0.0)
        padding = self.padding(resolution)
        return values if padding is None else _Cleared.apply(values, padding)

    def _traced_sizes(self, resolution: tuple[int, int]) -> Tensor:
        """I 2: the images' own sizes at a resolution that torch.export has as an expression, as `padding` finds them."""
        from torch.fx.experimental.symbolic_shapes import statically_known_true  # it imports sympy

        sizes_I2, (height, width) = cast(Tensor, self._sizes_I2), self._resolution
        for _ in range(MAX_STRIDES + 1):
            if statically_known_true(height == resolution[0]) and statically_known_true(width == resolution[1]):
                self._sizes_I2, self._resolution = sizes_I2, (height, width)
                return sizes_I2
            # ⌈n / 2⌉ as torch writes the size that a convolution leaves, so that the expressions are the same
            sizes_I2, height, width = (sizes_I2 + 1) // 2, (height - 1) // 2 + 1, (width - 1) // 2 + 1
        raise ValueError(f"no stride of 2 leads to the resolution {resolution}")


def find_padding(sizes_I2: Tensor, resolution: tuple[int, int], device: torch.device) -> Padding | None:
    """Of images of these sizes (on the CPU) in a batch of this resolution; None where there is none."""
    own, everything = int(sizes_I2.prod(1).sum()), len(sizes_I2) * resolution[0] * resolution[1]
    if own == everything:
        return None
    places = None if device.type == "cpu" else find_places(sizes_I2.to(device, non_blocking=True), resolution, everything - own)
    sizes = [(height, width) for height, width in sizes_I2.tolist()]
    return Padding(sizes, resolution, own, everything, places)


def find_places(sizes_I2: Tensor, resolution: tuple[int, int], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of the `count` padded pixels, by sorting: `nonzero` would wait for the device to count them."""
    places_P = inside_mask(sizes_I2, resolution).flatten().to(torch.uint8).argsort(stable=True)[:count]
    area = resolution[0] * resolution[1]
    return places_P // area, places_P % area // resolution[1], places_P % resolution[1]


def inside_mask(sizes_I2: Tensor, resolution: tuple[int, int]) -> Tensor:
    """I h w bool, True at the first sizes_I2[:, 0] rows and sizes_I2[:, 1] columns."""
    rows = torch.arange(resolution[0], device=sizes_I2.device) < sizes_I2[:, :1]
    columns = torch.arange(resolution[1], device=sizes_I2.device) < sizes_I2[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def keep(values_IChw: Tensor, inside_I1hw: Tensor | None) -> Tensor:
    """The values, with zeros where `inside` is False; None: all of them."""
    return values_IChw if inside_I1hw is None else values_IChw.masked_fill(~inside_I1hw, 0)


class _Cleared(Function):
    """Zeros at padding, in place."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, padding: Padding) -> Tensor:
        padding.fill_(values, 0)
        ctx.mark_dirty(values)
        ctx.padding = padding
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        cleared = gradient.clone()
        ctx.padding.fill_(cleared, 0)
        return cleared, None


class _Normalised(Function):
    """Batch norm in training over the images' own pixels, n of a batch's N, by torch's kernels, which know of N alone.

    Padding that is filled with the mean μ leaves it as it is, adds nothing to the sum of squares, and takes no part in the
    backward pass's sum over gradient times x - μ; what is divided by N there must be divided by n, which factors of the scale
    and of 1/σ do. Only the gradient's own mean is put right afterwards. Besides what torch does for a batch without padding,
    this writes padding four times and adds a number to each channel of the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight_C: Tensor, bias_C: Tensor, padding: Padding, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised values, with zeros at padding, mean_C and variance_C. Overwrites the padding of `values`."""
        exact = torch.promote_types(values.dtype, torch.float32)  # under autocast they are bfloat16
        own, surplus = padding.own, padding.all - padding.own
        # any value would do; one near the mean keeps what is subtracted again small
        height, width = (min(size[axis] for size in padding.sizes) for axis in (0, 1))
        near_C = values[:, :, height // 2, :width].to(exact).mean((0, 2)).to(values.dtype).to(exact)
        padding.fill_(values, near_C)
        unused_C = torch.zeros_like(near_C)
        mean_C, variance_C = torch.batch_norm_update_stats(values, unused_C, unused_C, 0.0)  # over all N
        away_C = mean_C - near_C
        mean_C = mean_C + away_C * (surplus / own)
        variance_C = ((variance_C - away_C.square() * (surplus / own)) * (padding.all / own)).clamp(min=0)
        padding.fill_(values, mean_C)
        scale_C, shift_C = weight_C.to(exact), bias_C.to(exact)
        normalised = torch.native_batch_norm(values, scale_C, shift_C, mean_C, variance_C, False, 0.0, eps)[0]
        padding.fill_(normalised, 0)
        ctx.save_for_backward(values, weight_C, mean_C, torch.rsqrt(variance_C + eps))
        ctx.padding, ctx.eps = padding, eps
        ctx.mark_non_differentiable(mean_C, variance_C)
        return normalised, mean_C, variance_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, weight_C, mean_C, inverse_C = ctx.saved_tensors
        padding, weight_dtype = ctx.padding, weight_C.dtype
        weight_C = weight_C.to(inverse_C.dtype)
        ratio = math.sqrt(padding.own / padding.all)
        gradient_values, gradient_weight_C, gradient_bias_C = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight_C * ratio, None, None, mean_C, inverse_C / ratio, True, ctx.eps, [True, True, True]
        )
        own_bias_C = gradient_bias_C - padding.sum(gradient)
        error_C = weight_C * inverse_C * (gradient_bias_C / padding.all - own_bias_C / padding.own)
        gradient_values.add_(error_C[:, None, None].to(gradient_values.dtype))
        padding.fill_(gradient_values, 0)
        return gradient_values, (gradient_weight_C * ratio).to(weight_dtype), own_bias_C.to(weight_dtype), None, None


class MaskedBatchNorm2d(nn.BatchNorm2d):
    """Trainable batch norm over the images' own pixels. In training it writes to the padding of what it is given."""

    running_mean: Tensor  # torch's own may be without
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, area: ValidArea):
        super().__init__(channels)
        self.area = area

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return self.area.clear(super().forward(values))
        padding = self.area.padding((values.shape[-2], values.shape[-1]))
        if padding is None:
            self.require_pixels(values.numel() // values.shape[1])
            return super().forward(values)
        normalised, mean_C, variance_C = _Normalised.apply(values, self.weight, self.bias, padding, self.eps)
        with torch.no_grad():  # the running variance is unbiased, as torch's own
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
            unbiased_C = variance_C * (padding.own / max(padding.own - 1, 1))
            self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)
        return normalised

    def require_pixels(self, number: int) -> None:
        """Raises UserError where there is but one, of which no statistics are."""
        if number == 1:
            raise UserError(
                "processors.image.params.short_edge: batch norm cannot be trained on the single pixel that is left of a "
                "micro-batch's only image; use larger images, a larger training.micro_batch_size, or "
                f"{self.area.norm_key}=frozen"
            )

    def traceable(self, values: Tensor, inside_I1hw: Tensor | None) -> Tensor:
        """`forward` as torch.compile takes it: no look-up, and nothing is written to. The sums over the images' own pixels are
        written out, since a compiler makes as few passes over memory of them as there are of torch's kernels."""
        if inside_I1hw is None or not self.training:
            return keep(super().forward(values), inside_I1hw)
        own = inside_I1hw.sum()
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        mean_C11 = keep(exact, inside_I1hw).sum((0, 2, 3), keepdim=True)[0] / own
        centred = keep(exact - mean_C11, inside_I1hw)
        variance_C11 = centred.square().sum((0, 2, 3), keepdim=True)[0] / own
        scale_C11 = torch.rsqrt(variance_C11 + self.eps) * self.weight.to(exact.dtype)[:, None, None]
        normalised = keep(centred * scale_C11 + self.bias.to(exact.dtype)[:, None, None], inside_I1hw)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean_C11.flatten().to(self.running_mean.dtype), self.momentum)
            unbiased_C = variance_C11.flatten() * (own / (own - 1).clamp(min=1))
            self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)
        return normalised.to(values.dtype)


class MaskedFrozenBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision has no types
    """Batch norm with fixed statistics, scale and bias (detection's habit for small batches)."""

    def __init__(self, channels: int, area: ValidArea):
        super().__init__(channels)
        self.area = area

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """C each, float32 or, of such weights, float64: what the norm multiplies by and adds, which is all that it does."""
        # float32 at least: float16 holds no variance above 65504, and an eps only in part
        exact = torch.promote_types(self.weight.dtype, torch.float32)
        weight_C, bias_C, mean_C, variance_C = (
            each.to(exact) for each in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale_C = weight_C * (variance_C + self.eps).rsqrt()
        return scale_C, bias_C - mean_C * scale_C

    def forward(self, values: Tensor) -> Tensor:
        return self.area.clear(self._scaled(values))

    def traceable(self, values: Tensor, inside_I1hw: Tensor | None) -> Tensor:
        """`forward` as torch.compile takes it."""
        return keep(self._scaled(values), inside_I1hw)

    def _scaled(self, values: Tensor) -> Tensor:
        scale_C, shift_C = (each.to(values.dtype) for each in self.scale_and_shift())
        return torch.addcmul(shift_C[:, None, None], values, scale_C[:, None, None])


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
