"""Image encoders: torchvision's ResNets without pooling and classifier, then 2×2 max pooling (paper, section 3.2.2).

I images, H W padded size, C channels of the last stage, P = rows · columns pixels of the grid.
in: images_I3HW float, sizes_I2 int64 on the CPU; out: PixelFeatures (pixels_IPC, mask_IP, grid).
"""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import array_pickle
from pixelbert_plugin.checkpoint.weights import (
    compare,
    load_reported,
    one_line,
    read_metadata,
    read_state_dict,
    report_names,
    require_file,
    write_weights,
)
from pixelbert_plugin.encoders.cnn_formats import (
    FORMAT_KEY,
    FORMATS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    CnnWeights,
    for_our_input,
    read_layout,
    recognised,
)
from pixelbert_plugin.encoders.folding import fold
from pixelbert_plugin.encoders.masked_norm import NORMS, ValidArea, inside_mask
from pixelbert_plugin.encoders.options import ResNetConfig
from pixelbert_plugin.encoders.residual import compile_unit
from pixelbert_plugin.errors import RunError
from pixelbert_plugin.interfaces import Normalization
from pixelbert_plugin.types import CompileUnit, PixelFeatures

logger = logging.getLogger(__name__)

STAGES = ("layer1", "layer2", "layer3", "layer4")  # torchvision's names


class ResNetEncoder(nn.Module):
    """A ResNet whose last feature map is read as a sequence of pixels; subclasses name the architecture."""

    Config = ResNetConfig
    block: type[nn.Module] = Bottleneck
    layers: tuple[int, ...]  # blocks in each of the four stages
    groups: int = 1
    width_per_group: int = 64
    torchvision_name: str | None = None  # whose published weights fit; None where there are none

    def __init__(self, config: ResNetConfig):
        super().__init__()
        if config.norm == "sync" and not torch.cuda.is_available():
            raise ValueError("norm: 'sync' needs CUDA; use trainable or frozen on a CPU")
        self.config = config
        self.area = ValidArea(registry.key_of(config, "norm"))
        self.max_pool = config.max_pool
        self.resnet = ResNet(
            self.block,
            list(self.layers),
            groups=self.groups,
            width_per_group=self.width_per_group,
            norm_layer=lambda channels: NORMS[config.norm](channels, self.area),
        )
        self.out_channels: int = self.resnet.fc.in_features >> (len(STAGES) - config.num_stages)
        del self.resnet.fc, self.resnet.avgpool
        for name in STAGES[config.num_stages :]:
            delattr(self.resnet, name)
        self.stride_in_1x1 = bool(config.stride_in_1x1)
        self.normalization: Normalization | None = None
        self.weights_format: str | None = None  # of the file of weights: its name in cnn_formats.FORMATS
        if config.weights is not None:
            self._load(config.weights)
        if self.stride_in_1x1:
            self._move_strides()

    def forward(self, images_I3HW: Tensor, sizes_I2: Tensor) -> PixelFeatures:
        """Encode zero-padded images; every image's features are those it would have alone."""
        net, area = self.resnet, self.area
        area.set(sizes_I2, (images_I3HW.shape[-2], images_I3HW.shape[-1]), images_I3HW.device)
        if images_I3HW.is_cuda:  # the layout that tensor cores read
            images_I3HW = images_I3HW.contiguous(memory_format=torch.channels_last)
        values = net.relu(net.bn1(net.conv1(images_I3HW)))
        # max pooling spreads an image's last row or column one step into the padding
        values = area.clear(net.maxpool(values))
        for stage in self._stages():
            values = stage(values)
        grid_sizes_I2 = -(-sizes_I2 // (2 << self.config.num_stages))  # strides of 2, each ⌈n / 2⌉: five with all stages
        if self.max_pool:
            values, grid_sizes_I2 = pool_pixels(values), (grid_sizes_I2 // 2).clamp(min=1)
        rows, columns = values.shape[-2:]
        mask_IP = inside_mask(grid_sizes_I2.to(values.device, non_blocking=True), (rows, columns)).flatten(1)
        pixels_IPC = values.flatten(2).transpose(1, 2) * mask_IP[..., None]
        return PixelFeatures(pixels=pixels_IPC, mask=mask_IP, grid=(rows, columns))

    @property
    def grid_centres(self) -> tuple[float, float]:
        """Each stride of 2 keeps every second place, from the first on, so that the first pixel looks at the image's corner,
        not into its own cell; a pooled pixel looks between two (interfaces.ImageEncoder)."""
        step = float(2 << self.config.num_stages)
        return ((1 + step) / 2, 2 * step) if self.max_pool else (0.5, step)

    def portable(self) -> ResNetConfig:
        """The options without `weights`; batch norms as a CPU has them too, of the same names (interfaces.Portable)."""
        norm = "trainable" if self.config.norm == "sync" else self.config.norm
        return replace(self.config, weights=None, weights_format="auto", stride_in_1x1=self.stride_in_1x1, norm=norm)

    def save_pretrained(self, folder: Path) -> dict[str, str]:
        """The CNN in torchvision's names, which are timm's too; without a classifier (interfaces.Publishable)."""
        reason = None
        if self.stride_in_1x1:
            reason = "torchvision's and timm's networks stride in the 3×3 convolution, and would compute other features"
        elif self.config.num_stages < len(STAGES):
            reason = f"torchvision's and timm's networks have four stages, this one {self.config.num_stages}"
        if reason is not None:
            return {"image_encoder": f"not written: {reason}"}
        write_weights(path := folder / "model.safetensors", self.resnet.state_dict())
        return {"image_encoder": str(path)}

    def prepare_inference(self) -> None:
        """Norms folded into convolutions (interfaces.Inferring)."""
        fold(self.resnet, self.area)

    def shard_units(self) -> list[nn.Module]:
        """The stages, without the stem."""
        return self._stages()

    def compile_units(self) -> list[CompileUnit]:
        """The stages' residual blocks: a stage's are alike but for the first, and those that are alike are compiled once. None
        with norms over all processes, which talk to each other in between."""
        if self.config.norm == "sync":
            logger.warning("training.compile: the CNN is not compiled, since it has %s=sync", self.area.norm_key)
            return []
        return [compile_unit(block, self.area) for stage in self._stages() for block in cast(nn.Sequential, stage)]

    def _stages(self) -> list[nn.Module]:
        return [getattr(self.resnet, name) for name in STAGES[: self.config.num_stages]]

    def _load(self, weights: str) -> None:
        """Raises ValueError("option: …") where the file's conventions are unknown or contradict an option."""
        path = Path(weights)
        is_file = bool(path.suffix) or os.sep in weights or os.path.exists(path)
        found = read_weights(path) if is_file else read_layout(_torchvision_weights(weights, self.torchvision_name))
        seen = recognised(found)
        name = self.config.weights_format if self.config.weights_format != "auto" else seen
        if found.said not in (None, name):
            raise ValueError(f"weights_format: {name!r}, but {weights!r} says that it is {found.said!r}; leave it out")
        if name is None:
            raise ValueError(
                f"weights_format: {weights!r} has {found.layout}'s names, which networks of several conventions share; say "
                f"which it has: {', '.join(FORMATS)} (docs/weights.md)"
            )
        conventions = FORMATS[name]
        if self.config.stride_in_1x1 not in (None, conventions.stride_in_1x1):
            raise ValueError(
                f"stride_in_1x1: {self.config.stride_in_1x1}, but {weights!r} is {name}'s, trained with "
                f"{conventions.stride_in_1x1}; leave it out, or give the file's weights_format"
            )
        if found.is_affine and self.config.norm != "frozen":
            raise ValueError(
                f"norm: {self.config.norm!r}, but the batch norms of {weights!r} are a scale and a shift without statistics, "
                "which training would normalise anew; set norm=frozen"
            )
        self.stride_in_1x1, self.weights_format = conventions.stride_in_1x1, name
        self.normalization = (IMAGENET_MEAN, IMAGENET_STD)
        key = registry.key_of(self.config, "weights")
        found = self._of_its_stages(found)
        report_names(f"{key}={weights}", {"no part of the CNN, left out as expected": found.left_out})
        if found.layout != "torchvision":
            self._require_all(found, weights)
        if seen in (None, name):
            logger.info("%s=%s: taken for %s's", key, weights, name)
        else:
            logger.warning("%s=%s: looks like %s's, and is taken for %s's, as weights_format says", key, weights, seen, name)
        load_reported(self.resnet, for_our_input(found.tensors, conventions), f"{key}={weights}")

    def _of_its_stages(self, found: CnnWeights) -> CnnWeights:
        """Without the stages that this CNN does not have."""
        without = tuple(f"{name}." for name in STAGES[self.config.num_stages :])
        surplus = [name for name in found.tensors if name.startswith(without)] if without else []
        tensors = {name: value for name, value in found.tensors.items() if name not in set(surplus)}
        return replace(found, tensors=tensors, left_out=[*found.left_out, *surplus])

    def _require_all(self, found: CnnWeights, weights: str) -> None:
        """Raises ValueError where a detector's CNN is not this one: another depth or width, or a part of it."""
        told = [
            f"{len(names)} {what}, such as {names[0]}" for what, names in compare(self.resnet, found.tensors).items() if names
        ]
        if told:
            raise ValueError(f"weights: {weights!r} is of another network than this encoder ({'; '.join(told)})")

    def _move_strides(self) -> None:
        """Let each stage stride in its first 1×1 convolution, as MSRA's ResNets do, instead of in the 3×3 after it."""
        if self.block is not Bottleneck:
            raise ValueError("stride_in_1x1: true, but this ResNet's blocks have no 1×1 convolution to stride in")
        for stage in self._stages()[1:]:
            first: Any = cast(nn.Sequential, stage)[0]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride


def read_weights(path: Path) -> CnnWeights:
    """A file of weights: .pth, .safetensors, or the .pkl of Caffe2's and detectron2's model zoos. Raises ValueError."""
    is_zoos = path.suffix == ".pkl"
    content: dict[str, Any] = {} if is_zoos else read_state_dict(path)  # whose errors name the file
    try:
        found = read_layout(*_blobs(path)) if is_zoos else read_layout(content)
    except ValueError as error:
        raise ValueError(f"weights: {str(path)!r}: {error}") from error
    said = read_metadata(path).get(FORMAT_KEY)
    if said not in (None, *FORMATS):
        raise ValueError(f"weights: {str(path)!r}: says that its format is {said!r}; it has {', '.join(FORMATS)}")
    return replace(found, said=said)


def _blobs(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a model zoo's .pkl by name, without those of its optimizer, and its author. Raises ValueError."""
    require_file(path)
    content = array_pickle.read(path)
    if not isinstance(content, dict):
        raise ValueError("holds no arrays by name")
    blobs = next((content[name] for name in ("model", "blobs") if isinstance(content.get(name), dict)), content)
    arrays = {str(name): value for name, value in blobs.items() if isinstance(value, np.ndarray)}
    own = {name: value for name, value in arrays.items() if not name.endswith("_momentum")}
    return own, str(content.get("__author__", ""))


def pool_pixels(values: Tensor) -> Tensor:
    """2×2 max pooling with stride 2 (paper); a grid of one row or column keeps it, where torch would return nothing.

    Features are ≥ 0 after ReLU, so zeros at padding never win over a pixel of the image.
    """
    if torch.compiler.is_exporting():  # where graphs.program keeps grids larger, and a size must not be asked
        return F.max_pool2d(values, 2)
    rows, columns = (max(1, size // 2) for size in values.shape[-2:])
    return F.max_pool2d(values, 2, ceil_mode=True)[..., :rows, :columns]


def _torchvision_weights(name: str, torchvision_name: str | None) -> dict[str, Tensor]:
    """Weights by torchvision's enum name, downloaded by torchvision or read from its cache ($TORCH_HOME)."""
    if torchvision_name is None:
        raise ValueError(f"weights: {name!r}: torchvision has no weights for this backbone; give a local file instead")
    known = torchvision.models.get_model_weights(torchvision_name)
    if name not in known.__members__:
        names = ", ".join(known.__members__)
        raise ValueError(f"weights: {name!r}: torchvision has {names} for {torchvision_name}, or give a file")
    try:
        return known[name].get_state_dict(progress=False, check_hash=True)
    except RunError:
        raise
    except Exception as error:  # no network, or a damaged file in the cache
        raise ValueError(
            f"weights: {name!r} cannot be downloaded or read ({one_line(error)}); get it elsewhere and give the file's path"
        ) from error


@registry.register_encoder("resnet18")
class ResNet18(ResNetEncoder):
    """ResNet-18: for laptops and tests, not in the paper."""

    block, layers, torchvision_name = BasicBlock, (2, 2, 2, 2), "resnet18"


@registry.register_encoder("resnet50")
class ResNet50(ResNetEncoder):
    """ResNet-50: the paper's smaller backbone."""

    layers, torchvision_name = (3, 4, 6, 3), "resnet50"


@registry.register_encoder("resnet101")
class ResNet101(ResNetEncoder):
    """ResNet-101: between the paper's two backbones."""

    layers, torchvision_name = (3, 4, 23, 3), "resnet101"


@registry.register_encoder("resnext101_32x8d")
class ResNeXt101Width8(ResNetEncoder):
    """ResNeXt-101 32×8d: torchvision's and detectron2's, the larger of grid features' published backbones but one."""

    layers, groups, width_per_group, torchvision_name = (3, 4, 23, 3), 32, 8, "resnext101_32x8d"


@registry.register_encoder("resnext152_32x4d")
class ResNeXt152Width4(ResNetEncoder):
    """ResNeXt-152 32×4d: the group width that fits ViLT's parameter count for the paper."""

    layers, groups, width_per_group = (3, 8, 36, 3), 32, 4


@registry.register_encoder("resnext152_32x8d")
class ResNeXt152Width8(ResNetEncoder):
    """ResNeXt-152 32×8d: the group width of grid features."""

    layers, groups, width_per_group = (3, 8, 36, 3), 32, 8
