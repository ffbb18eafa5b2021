"""Image encoder: any model of timm (pip install timm) that gives feature maps, such as convnext_tiny or efficientnet_b0.

I images, H W padded size, C channels of the chosen feature map, P = rows · columns pixels of the grid.
in: images_I3HW float, sizes_I2 int64 on the CPU; out: PixelFeatures (pixels_IPC, mask_IP, grid).
"""

import difflib
from collections import defaultdict
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import hub
from pixelbert_plugin.checkpoint.weights import load_reported, one_line, read_state_dict, write_weights
from pixelbert_plugin.encoders.masked_norm import inside_mask
from pixelbert_plugin.encoders.options import TimmConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import Normalization
from pixelbert_plugin.types import PixelFeatures

PRETRAINED = "pretrained"


@registry.register_encoder("timm")
class TimmEncoder(nn.Module):
    """Any timm model with feature maps. Images of one size go through it together, without padding: each is as if alone."""

    Config = TimmConfig

    def __init__(self, config: TimmConfig):
        super().__init__()
        self.config = config
        self.net = _create(config)
        info: Any = self.net.feature_info  # timm's FeatureInfo
        self.out_channels: int = info.channels()[-1]
        self.stride: int = info.reduction()[-1]
        self.normalization = _normalization(config.model) if config.weights == PRETRAINED else None  # of a file it is unknown
        if config.weights not in (None, PRETRAINED):
            own = self.net.state_dict()
            state = _as_in(own, read_state_dict(Path(config.weights)))
            surplus = [name for name in state if name not in own]  # later stages and the classifier
            load_reported(self.net, state, f"{registry.key_of(config, 'weights')}={config.weights}", expected_unused=surplus)
        self.train(self.training)

    def forward(self, images_I3HW: Tensor, sizes_I2: Tensor) -> PixelFeatures:
        """Encode zero-padded images; every image's features are those it would have alone."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, size in enumerate(sizes_I2.tolist()):
            alike[tuple(size)].append(index)
        maps: list[Tensor] = [images_I3HW] * len(images_I3HW)
        for (height, width), indices in alike.items():
            own = torch.stack([images_I3HW[index, :, :height, :width] for index in indices])
            # strides may floor, and some models want multiples: zeros below and right, the same for an image alone
            own = F.pad(own, (0, -width % self.stride, 0, -height % self.stride))
            if own.is_cuda:  # the layout that tensor cores read
                own = own.contiguous(memory_format=torch.channels_last)
            for index, values in zip(indices, self._features(own), strict=True):
                maps[index] = values
        grid_sizes_I2 = torch.tensor([values.shape[-2:] for values in maps])  # sent without a wait for the device
        rows, columns = (max(values.shape[axis] for values in maps) for axis in (1, 2))
        padded = torch.stack([F.pad(values, (0, columns - values.shape[2], 0, rows - values.shape[1])) for values in maps])
        mask_IP = inside_mask(grid_sizes_I2.to(padded.device, non_blocking=True), (rows, columns)).flatten(1)
        return PixelFeatures(pixels=padded.flatten(2).transpose(1, 2), mask=mask_IP, grid=(rows, columns))

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Frozen batch norms stay as they are, statistics, scale and bias."""
        super().train(mode)
        if self.config.norm == "frozen":
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval().requires_grad_(False)
        return self

    def portable(self) -> TimmConfig:
        """The options without `weights` (interfaces.Portable)."""
        return replace(self.config, weights=None)

    def save_pretrained(self, folder: Path) -> dict[str, str]:
        """In the names of `timm.create_model(…, features_only=True)` (interfaces.Publishable)."""
        write_weights(path := folder / "model.safetensors", self.net.state_dict())
        return {"image_encoder": str(path)}

    def shard_units(self) -> list[nn.Module]:
        """The model's parts that hold weights."""
        return [part for part in self.net.children() if any(True for _ in part.parameters())]

    def _features(self, images_I3HW: Tensor) -> Tensor:
        """I C rows columns; Swin and its like give channels last."""
        try:
            values = self.net(images_I3HW)[-1]
        except AssertionError as error:  # so timm's transformers refuse a size
            size = tuple(images_I3HW.shape[-2:])
            raise UserError(
                f"{registry.key_of(self.config, 'model')}={self.config.model!r}: takes no images of {size} pixels "
                f"({error}); try params.options={{dynamic_img_size: true}} (ViT) or {{strict_img_size: false}} (Swin)"
            ) from error
        return values if values.shape[1] == self.out_channels else values.permute(0, 3, 1, 2)


def _as_in(own: Iterable[str], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a whole model under the names of its part with feature maps, whose wrappers timm names "stages.0" as
    "stages_0", or puts below "model."."""

    def plain(name: str) -> str:
        return name.removeprefix("model.").replace("_", ".")

    names = {plain(name): name for name in own}
    return {names.get(plain(name), name): value for name, value in state.items()}


def _normalization(model: str) -> Normalization | None:
    """What the images of timm's own training were normalised by; None where timm does not say."""
    import timm

    published = timm.get_pretrained_cfg(model)
    return None if published is None else (published.mean, published.std)


def _create(config: TimmConfig) -> nn.Module:
    """Raises ValueError("field: what is wrong")."""
    try:
        import timm
    except ImportError as error:
        raise ValueError("model: the encoder timm needs the package timm; pip install timm") from error
    if not timm.is_model(config.model.partition(".")[0]):
        near = ", ".join(difflib.get_close_matches(config.model, timm.list_models(), n=5)) or "timm.list_models()"
        raise ValueError(f"model: timm has no {config.model!r}; it has {near}")
    try:
        is_pretrained = config.weights == PRETRAINED
        features: dict[str, Any] = {"features_only": True, "out_indices": (config.stage,)}
        with hub.asked() if is_pretrained else nullcontext():
            return timm.create_model(config.model, pretrained=is_pretrained, **features, **config.options)
    except Exception as error:
        what = "weights" if config.weights == PRETRAINED else "model"
        reason = hub.reason(error) if what == "weights" else one_line(error)
        raise ValueError(f"{what}: timm cannot make {config.model!r} with feature maps ({reason})") from error
