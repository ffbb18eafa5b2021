"""Image processor. Workers: `decode`, `augment` (uint8). On the device: called with images (resize, normalise, pad).

I images; h w an image's own size, H W the largest's: in uint8 3hw each, out images_I3HW float32, sizes_I2.
"""

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
        padded = torch.zeros(len(sizes), 3, height, width, device=device)
        mean, std = self._scale(padded.device)
        # one by one, in place, and normalised where there are fewer pixels (benchmarks/steps.txt)
        for place, image, (height, width) in zip(padded, images, sizes, strict=True):
            values = image.to(device, non_blocking=True).float()
            grows = height * width > values[0].numel()
            if grows:
                values.sub_(mean).div_(std)
            if tuple(values.shape[-2:]) != (height, width):
                values = F.interpolate(values[None], (height, width), mode="bilinear", antialias=True)[0]
            place[:, :height, :width] = values if grows else values.sub_(mean).div_(std)
        return padded, torch.tensor(sizes)

    def _scale(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and std of 0…255 RGB, 3 1 1, sent to the device once."""
        if device not in self._scales:
            values = torch.tensor([self.config.mean, self.config.std], device=device) * 255
            self._scales[device] = tuple(values[:, :, None, None])
        return self._scales[device]
