"""The weights of ResNets and ResNeXts as others published them, under torchvision's names and for our input.

A file has a layout, which its names show, and conventions, which they do not: whether a stage strides in its first 1×1 or in
its 3×3 convolution, whether images come as RGB or BGR, what they are divided by. Networks of other conventions have the same
names and shapes and give other features. So conventions are known of the source that is recognised, or asked for by
`weights_format`.

Sources: detectron2 (MODEL_ZOO.md, config/defaults.py, checkpoint/c2_model_loading.py, tools/convert-torchvision-to-d2.py) and
grid-feats-vqa (configs/*.yaml), read at github.com/facebookresearch in November 2026.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BATCH_NORM_EPS = 1e-5  # of torchvision's and detectron2's norms
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of values in 0…1: what is taken from our images
IMAGENET_STD = (0.229, 0.224, 0.225)  # and what they are divided by
STAGES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}
BRANCHES = {"branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3", "branch1": "shortcut"}
PREFIXES = ("cnn.feature.backbone.", "backbone.bottom_up.", "backbone.", "bottom_up.")  # of a detector's image encoder
NORM_PARTS = {"s": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "rm": "running_mean", "riv": "running_var"}
FORMAT_KEY = "pixelbert_plugin_weights_format"  # of a .safetensors' metadata, as encoders/calibration.py writes it
CLASSIFIER = ("fc.", "stem.fc.", "linear.", "fc1000", "pred", "last_out")


@dataclass(frozen=True)
class Conventions:
    """What names and shapes do not show of a file of weights."""

    stride_in_1x1: bool = False  # of a stage's first block; else in its 3×3 convolution
    is_bgr: bool = False  # the order of the input's channels
    divides: bool = True  # whether the input is divided by ImageNet's std; else it is 0…255 less the mean


FORMATS = {
    "torchvision": Conventions(),  # torchvision's and timm's, detectron2's converted R-50.pkl
    "msra": Conventions(stride_in_1x1=True, is_bgr=True, divides=False),  # MSRA/R-50.pkl and R-101.pkl, what started from them
    "caffe2": Conventions(is_bgr=True, divides=False),  # FAIR/X-152-32x8d-IN5k.pkl, what started from it
    "caffe2_std": Conventions(is_bgr=True, divides=True),  # FAIR/X-101-32x8d.pkl, what started from it
}


@dataclass(frozen=True)
class CnnWeights:
    """A file's tensors under torchvision's names, as yet for its own input."""

    tensors: dict[str, Tensor]
    left_out: list[str]  # of the file's names, what is no part of the CNN
    layout: str  # "torchvision", "caffe2" or "detectron2"
    author: str = ""  # as detectron2's files name it
    is_grid_feats: bool = False  # from a detector with attributes: grid-feats-vqa's, or ClipBERT's
    is_affine: bool = False  # batch norms without statistics
    said: str | None = None  # the name in FORMATS that the file itself gives


def read_layout(content: dict[str, Any], author: str = "") -> CnnWeights:
    """The tensors of a state dict or of Caffe2's blobs. Raises ValueError for a network that is none of ours."""
    _refuse_others(content)
    names = list(content)
    if any(name.endswith("_w") for name in names) and "conv1_w" in names:
        return _renamed(content, _caffe2_name, "caffe2", author)
    if any(_of_backbone(name).startswith(("res2.", "stem.conv1.")) for name in names):
        return _renamed(content, _detectron2_name, "detectron2", author)
    tensors = {name: _tensor(value) for name, value in content.items() if not name.startswith(CLASSIFIER)}
    return CnnWeights(tensors, [name for name in names if name.startswith(CLASSIFIER)], "torchvision")


def recognised(weights: CnnWeights) -> str | None:
    """The name in FORMATS of what the file is; None where files of several conventions look so."""
    if weights.said is not None:
        return weights.said
    if weights.layout == "torchvision" or weights.author == "torchvision":
        return "torchvision"
    conv2 = weights.tensors.get("layer1.0.conv2.weight")
    is_grouped = conv2 is not None and conv2.shape[0] != conv2.shape[1]
    has_101_layers = "layer3.22.conv1.weight" in weights.tensors and "layer3.23.conv1.weight" not in weights.tensors
    if is_grouped and has_101_layers:
        return "caffe2_std"  # one such network was published, and detectron2's models of it began with that
    if is_grouped and weights.layout == "caffe2":
        return "caffe2"
    if not is_grouped and (weights.layout == "caffe2" or weights.is_grid_feats):
        return "msra"
    return None


def for_our_input(tensors: dict[str, Tensor], conventions: Conventions) -> dict[str, Tensor]:
    """The first convolution's weights for RGB images from which ImageNet's mean is taken and which its std divides.

    255 × ImageNet's mean is detectron2's mean, so that both inputs differ by a factor a channel, and padding is 0 in both.
    """
    weight = tensors.get("conv1.weight")
    if weight is None:  # of something else: whoever loads it will say so
        return tensors
    if conventions.is_bgr:
        weight = weight.flip(1)
    if not conventions.divides:
        weight = weight * (255 * torch.tensor(IMAGENET_STD, dtype=weight.dtype))[:, None, None]
    return {**tensors, "conv1.weight": weight}


def _refuse_others(content: dict[str, Any]) -> None:
    for name in content:
        if "conv2_offset" in name or "offset" in name.split("_"):
            raise ValueError(
                f"is a network with deformable convolutions ({name}), which is not built here; grid-feats-vqa's "
                "X-152.pth is the like without them"
            )
        if re.search(r"_gn_[sb]$", name):
            raise ValueError(f"is a network with group normalization ({name}), which is not built here")


def _renamed(content: dict[str, Any], rename: Any, layout: str, author: str) -> CnnWeights:
    tensors: dict[str, Tensor] = {}
    left_out = []
    for name, value in content.items():
        own = rename(name)
        if own is None:
            left_out.append(name)
        else:
            tensors[own] = _tensor(value)
    if "conv1.weight" not in tensors:
        raise ValueError("has the names of a ResNet, but no first convolution of one; is it whole?")
    is_affine = "bn1.running_var" not in tensors
    if is_affine:  # then weight and bias are all of the norm
        for name in [name for name in tensors if re.search(r"(bn\d|downsample\.1)\.weight$", name)]:
            norm, size = name.removesuffix("weight"), len(tensors[name])
            tensors[f"{norm}running_mean"] = torch.zeros(size)
            tensors[f"{norm}running_var"] = torch.ones(size) - BATCH_NORM_EPS
    is_identity = all(
        not value.any() if name.endswith("running_mean") else bool((value - 1).abs().max() < 1e-3)
        for name, value in tensors.items()
        if name.endswith(("running_mean", "running_var"))
    )
    is_grid_feats = any("attr" in name for name in left_out) or any(name.startswith("cnn.feature.") for name in content)
    return CnnWeights(tensors, left_out, layout, author, is_grid_feats, is_affine or is_identity)


def _caffe2_name(name: str) -> str | None:
    """res2_0_branch2a_bn_s → layer1.0.bn1.weight; None for what is no part of the CNN."""
    parts = name.split("_")
    if parts[0] == "conv1" and parts[1:] == ["w"]:
        return "conv1.weight"
    if parts[:3] == ["res", "conv1", "bn"]:
        return _norm_name("bn1", parts[3:])
    if parts[0] not in STAGES or len(parts) < 4 or not parts[1].isdigit() or parts[2] not in BRANCHES:
        return None
    place, convolution, rest = f"{STAGES[parts[0]]}.{parts[1]}", BRANCHES[parts[2]], parts[3:]
    if rest == ["w"]:
        return f"{place}.{'downsample.0' if convolution == 'shortcut' else convolution}.weight"
    if rest[0] != "bn":
        return None
    return _norm_name(f"{place}.{_norm_of(convolution)}", rest[1:])


def _detectron2_name(name: str) -> str | None:
    """backbone.res2.0.conv1.norm.weight → layer1.0.bn1.weight; None for what is no part of the CNN."""
    parts = _of_backbone(name).removeprefix("stem.").split(".")
    if parts[0] in STAGES and len(parts) > 3:
        place, convolution, rest = f"{STAGES[parts[0]]}.{parts[1]}.", parts[2], parts[3:]
    elif parts[0] == "conv1":
        place, convolution, rest = "", "conv1", parts[1:]
    else:
        return None
    if rest[0] == "norm":
        return f"{place}{_norm_of(convolution)}.{rest[1]}"
    return f"{place}{'downsample.0' if convolution == 'shortcut' else convolution}.{rest[0]}"


def _of_backbone(name: str) -> str:
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def _norm_of(convolution: str) -> str:
    return "downsample.1" if convolution == "shortcut" else convolution.replace("conv", "bn")


def _norm_name(norm: str, rest: list[str]) -> str | None:
    part = NORM_PARTS.get(rest[0]) if len(rest) == 1 else {"mean": "running_mean", "var": "running_var"}.get(rest[-1])
    return None if part is None else f"{norm}.{part}"


def _tensor(value: Any) -> Tensor:
    found = value if isinstance(value, Tensor) else torch.as_tensor(value)
    return found.float() if found.is_floating_point() else found
