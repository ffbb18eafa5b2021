"""The native image processor by transformers' names. I images, R texts, N images of each."""

from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from pixelbert_plugin.data.images import BadImageError
from pixelbert_plugin.encoders.masked_norm import inside_mask
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.processors.options import ImageConfig
from pixelbert_plugin.registry.schema import merge

OPTIONS = [field.name for field in fields(ImageConfig)]
OF_FILES = {"image_processor_type", "processor_class", "feature_extractor_type", "auto_map", "backend"}  # beside the options


class PixelBertImageProcessor(BaseImageProcessor):
    """Images as the native model takes them: `processors.image.params` are its options, and its numbers are the native
    processor's to the last bit. It augments nothing; those options are kept for a native training."""

    model_input_names = ["pixel_values", "pixel_mask"]

    def __init__(self, **kwargs: Any):
        unknown = kwargs.keys() - set(OPTIONS) - OF_FILES
        if unknown:
            raise TypeError(f"{min(unknown)}: no option of PixelBertImageProcessor; it has {', '.join(OPTIONS)}")
        super().__init__()
        options = {name: kwargs[name] for name in OPTIONS if name in kwargs}
        self.native = ImageProcessor(merge(ImageConfig, options))

    def preprocess(self, images: Any, return_tensors: str | None = None, device: str = "cpu", **kwargs: Any) -> BatchFeature:
        """`pixel_values` I 3 H W float32, padded with zeros, and `pixel_mask` I H W int64, 1 at an image's own pixels; of lists
        of as many images each R N 3 H W and R N H W.

        An image is a path, an encoded file's bytes, Pillow's image, a uint8 array H W 3, or a uint8 tensor 3 H W; RGB. Raises
        ValueError for one that cannot be read.
        """
        if kwargs:
            raise TypeError(f"{min(kwargs)}: no option of a call; set it when the processor is made")
        given = images if isinstance(images, list | tuple) else [images]
        is_nested = bool(given) and all(isinstance(each, list | tuple) for each in given)
        if is_nested and len({len(each) for each in given}) > 1:
            raise ValueError("images: each text needs as many images as the others")
        flat = [image for each in given for image in each] if is_nested else list(given)
        if not flat:
            raise ValueError("images: there is none")
        values_I3HW, sizes_I2 = self.native([self._decoded(image) for image in flat], device)
        mask_IHW = inside_mask(sizes_I2.to(values_I3HW.device), (values_I3HW.shape[2], values_I3HW.shape[3])).long()
        if is_nested:
            values_I3HW, mask_IHW = (value.unflatten(0, (len(given), -1)) for value in (values_I3HW, mask_IHW))
        return BatchFeature({"pixel_values": values_I3HW, "pixel_mask": mask_IHW}, tensor_type=return_tensors)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        return self.preprocess(images, *args, **kwargs)

    def _decoded(self, image: Any) -> Tensor:
        if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.dim() == 3 and image.shape[0] == 3:
            return image
        try:
            return self.native.decode(image)
        except BadImageError as error:
            raise ValueError(str(error)) from error

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self.native.config), "image_processor_type": type(self).__name__}

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As the base class's: options among `kwargs` replace those of the mapping; others are left."""
        own = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        is_asked = kwargs.pop("return_unused_kwargs", False)
        made = cls(**{**image_processor_dict, **own})
        return (made, kwargs) if is_asked else made

    def __deepcopy__(self, memo: dict[int, Any]) -> "PixelBertImageProcessor":
        return type(self)(**asdict(self.native.config))
