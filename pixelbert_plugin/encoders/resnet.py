"""Image encoders: torchvision's ResNets without pooling and classifier, then 2×2 max pooling (paper, section 3.2.2).

I images, H W padded size, C channels of the last stage, P = rows · columns pixels of the grid.
in: images_I3HW float, sizes_I2 int64 on the CPU; out: PixelFeatures (pixels_IPC, mask_IP, grid).
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint.weights import load_reported, one_line, read_state_dict
from pixelbert_plugin.encoders.masked_norm import NORMS, ValidArea, inside_mask
from pixelbert_plugin.errors import RunError
from pixelbert_plugin.registry.schema import FilePath
from pixelbert_plugin.types import PixelFeatures


@dataclass(kw_only=True)
class ResNetConfig:
    weights: FilePath | None = None  # none: random; a torchvision enum name as IMAGENET1K_V1; or a file (.pth, .safetensors)
    norm: Literal["trainable", "frozen", "sync"] = "trainable"  # batch norms: trained, fixed, or trained over all processes
    max_pool: bool = True  # 2×2 max pooling after the last stage: total stride 64 (paper); off: 32


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
        self.out_channels: int = self.resnet.fc.in_features
        del self.resnet.fc, self.resnet.avgpool
        if config.weights is not None:
            self._load(config.weights)

    def forward(self, images_I3HW: Tensor, sizes_I2: Tensor) -> PixelFeatures:
        """Encode zero-padded images; every image's features are those it would have alone."""
        net, area = self.resnet, self.area
        area.set(sizes_I2, (images_I3HW.shape[-2], images_I3HW.shape[-1]), images_I3HW.device)
        if images_I3HW.is_cuda:  # the layout that tensor cores read
            images_I3HW = images_I3HW.contiguous(memory_format=torch.channels_last)
        values = net.relu(net.bn1(net.conv1(images_I3HW)))
        # max pooling spreads an image's last row or column one step into the padding
        values = area.clear(net.maxpool(values))
        values = net.layer4(net.layer3(net.layer2(net.layer1(values))))
        grid_sizes_I2 = -(-sizes_I2 // 32)  # five strides of 2, each ⌈n / 2⌉
        if self.max_pool:
            values, grid_sizes_I2 = pool_pixels(values), (grid_sizes_I2 // 2).clamp(min=1)
        rows, columns = values.shape[-2:]
        mask_IP = inside_mask(grid_sizes_I2.to(values.device, non_blocking=True), (rows, columns)).flatten(1)
        pixels_IPC = values.flatten(2).transpose(1, 2) * mask_IP[..., None]
        return PixelFeatures(pixels=pixels_IPC, mask=mask_IP, grid=(rows, columns))

    def portable(self) -> ResNetConfig:
        """The options without `weights`; batch norms as a CPU has them too, of the same names (interfaces.Portable)."""
        return replace(self.config, weights=None, norm="trainable" if self.config.norm == "sync" else self.config.norm)

    def shard_units(self) -> list[nn.Module]:
        """The four stages, without the stem."""
        return [self.resnet.layer1, self.resnet.layer2, self.resnet.layer3, self.resnet.layer4]

    def _load(self, weights: str) -> None:
        path = Path(weights)
        if path.suffix or os.sep in weights or os.path.exists(path):
            state = from_detection_names(read_state_dict(path))
        else:
            state = _torchvision_weights(weights, self.torchvision_name)
        # an ImageNet classifier has no place here: left out on purpose, so not worth a warning
        state = {name: value for name, value in state.items() if not name.startswith(("fc.", "stem.fc."))}
        load_reported(self.resnet, state, f"image_encoder weights {weights}")


def pool_pixels(values: Tensor) -> Tensor:
    """2×2 max pooling with stride 2 (paper); a grid of one row or column keeps it, where torch would return nothing.

    Features are ≥ 0 after ReLU, so zeros at padding never win over a pixel of the image.
    """
    rows, columns = (max(1, size // 2) for size in values.shape[-2:])
    return F.max_pool2d(values, 2, ceil_mode=True)[..., :rows, :columns]


def from_detection_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename detectron2's ResNet (`stem.conv1.norm.weight`, `res2.0.shortcut.weight`) to torchvision's; timm's are equal."""
    if not any(name.removeprefix("backbone.bottom_up.").startswith("res2.") for name in state):
        return state
    renamed = {}
    for name, value in state.items():
        parts = name.removeprefix("backbone.bottom_up.").removeprefix("stem.").split(".")
        if parts[0] in ("res2", "res3", "res4", "res5"):
            parts[0] = f"layer{int(parts[0][-1]) - 1}"
        if "shortcut" in parts[:-1]:
            at = parts.index("shortcut")
            parts[at : at + 2] = ["downsample", "1"] if parts[at + 1] == "norm" else ["downsample", "0", parts[at + 1]]
        elif parts[-2:-1] == ["norm"] and len(parts) > 2:  # conv2.norm.weight → bn2.weight
            parts[-3:-1] = [parts[-3].replace("conv", "bn")]
        renamed[".".join(parts)] = value
    return renamed


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


@registry.register_encoder("resnext152_32x4d")
class ResNeXt152Width4(ResNetEncoder):
    """ResNeXt-152 32×4d: the group width that fits ViLT's parameter count for the paper."""

    layers, groups, width_per_group = (3, 8, 36, 3), 32, 4


@registry.register_encoder("resnext152_32x8d")
class ResNeXt152Width8(ResNetEncoder):
    """ResNeXt-152 32×8d: the group width of grid features."""

    layers, groups, width_per_group = (3, 8, 36, 3), 32, 8
