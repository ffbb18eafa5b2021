"""Image processor. Workers: `decode`, `augment` (uint8). On the device: called with images (resize, normalise, pad).

I images; h w an image's own size, H W the largest's: in uint8 3hw each, out images_I3HW float32, sizes_I2.
"""

import contextlib
import math
import mmap
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as T
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.data.images import ImageSource, read_image
from pixelbert_plugin.interfaces import Normalization
from pixelbert_plugin.processors.options import ImageConfig

REDUCE_ABOVE = 2.0  # images this many times larger than needed are reduced in the worker, before transfer


@registry.register_processor("image")
class ImageProcessor:
    """Decode an image file; resize by the paper's short/long edge rule; normalise; pad with zeros."""

    Config = ImageConfig

    def __init__(self, config: ImageConfig):
        self.config = config
        self._scales: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def decode(self, source: ImageSource) -> Tensor:
        """Decode a file by its content to uint8 3hw RGB, upright; or an image in memory: encoded bytes, Pillow's image, a uint8
        array H W 3. Raises BadImageError naming the file."""
        image = read_image(source, self.config.max_pixels)
        height, width = self.resized(*image.shape[-2:])
        if image.shape[-2] > REDUCE_ABOVE * height:
            reduced = [round(REDUCE_ABOVE * height), round(REDUCE_ABOVE * width)]
            image = T.resize(image, reduced, antialias=True)
        return image

    def augment(self, image: Tensor, seed: int) -> Tensor:
        """Training's random crop, flip and colours: a function of the image and `seed` alone."""
        config, draw = self.config, random.Random(seed)
        if config.min_crop < 1:
            height, width = (max(1, round(size * draw.uniform(config.min_crop, 1))) for size in image.shape[-2:])
            top, left = draw.randint(0, image.shape[-2] - height), draw.randint(0, image.shape[-1] - width)
            image = T.crop(image, top, left, height, width)
        if draw.random() < config.horizontal_flip:
            image = T.horizontal_flip(image)
        if config.color_jitter > 0:
            for adjust in (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation):
                image = adjust(image, draw.uniform(1 - config.color_jitter, 1 + config.color_jitter))
        return image

    @property
    def augments(self) -> bool:
        """Whether training changes images (interfaces.ImageProcessor)."""
        config = self.config
        return config.horizontal_flip > 0 or config.min_crop < 1 or config.color_jitter > 0

    @property
    def normalization(self) -> Normalization:
        """Mean and std of the images it gives (interfaces.ImageProcessor)."""
        return self.config.mean, self.config.std

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The paper's rule: shorter side to short_edge, unless the longer would pass long_edge. Height, width in pixels."""
        scale = min(self.config.short_edge / min(height, width), self.config.long_edge / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __call__(self, images: Tensor | Sequence[Tensor], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """One image (3 h w uint8) or several on `device`: I 3 H W float32, resized, normalised and padded below and right with
        zeros; and I 2 int64 on the CPU, height and width of each before padding."""
        images = [images] if isinstance(images, Tensor) else images
        sizes = [self.resized(*image.shape[-2:]) for image in images]
        height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
        padded = zeros((len(sizes), 3, height, width), torch.device(device))
        mean, std = self._scale(padded.device)
        points: dict[tuple[int, int], Tensor] = {}  # of the last size: a batch's images are mostly of one
        # one by one, in place, and normalised where there are fewer pixels (benchmarks/input_path.txt)
        for place, image, (height, width) in zip(padded, images, sizes, strict=True):
            # as decoded, an image's channels stand last, where torch computes a channel's values one by one
            values = image.to(device, non_blocking=True).to(torch.float32, memory_format=torch.contiguous_format)
            grows = height * width > values[0].numel()
            if grows:
                values.sub_(mean).div_(std)
            values = resize(values, height, width, points)
            place[:, :height, :width] = values if grows else values.sub_(mean).div_(std)
        return padded, torch.tensor(sizes)

    def _scale(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and std of 0…255 RGB, 3 1 1, sent to the device once."""
        if device not in self._scales:
            values = torch.tensor([self.config.mean, self.config.std], device=device) * 255
            self._scales[device] = tuple(values[:, :, None, None])
        return self._scales[device]


def zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Of torch's default type. On a CPU in huge pages where the system has them: what is as large as a batch of images is new
    memory each time, and to get it in pages of 4 kB takes half as long as resizing into it."""
    if device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, device=device)
    dtype = torch.get_default_dtype()
    memory = mmap.mmap(-1, dtype.itemsize * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def resize(values_3hw: Tensor, height: int, width: int, points: dict[tuple[int, int], Tensor]) -> Tensor:
    """3 height width, bilinear; where an image shrinks, over all the pixels that become one (antialiasing). `points`: where the
    last size's pixels lie, for the next image."""
    own_height, own_width = values_3hw.shape[-2:]
    if (own_height, own_width) == (height, width):
        return values_3hw
    if height < own_height or width < own_width:
        return F.interpolate(values_3hw[None], (height, width), mode="bilinear", antialias=True)[0]
    # Enlarged, each pixel is a mean of four, and antialiasing changes nothing: the same by `grid_sample`, whose kernel takes a
    # third of the time on a CPU (benchmarks/input_path.txt)
    if (height, width) not in points:
        points.clear()
        points[height, width] = places = values_3hw.new_empty(1, height, width, 2)
        places[..., 0] = (torch.arange(width, device=places.device) + 0.5).mul_(2 / width).sub_(1)
        places[..., 1] = (torch.arange(height, device=places.device) + 0.5).mul_(2 / height).sub_(1)[:, None]
    return F.grid_sample(values_3hw[None], points[height, width], padding_mode="border", align_corners=False)[0]
