"""Weights of ResNets in other people's layouts and conventions, against networks written out here in theirs.

`reference` computes as detectron2 and Caffe2 do (BGR less a mean, strides, affine norms) from names as detectron2 has them;
the files are written from it in each layout.
"""

import dataclasses
import pickle
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.encoders.cnn_formats import FORMATS, read_layout, recognised
from pixelbert_plugin.encoders.options import Format
from pixelbert_plugin.encoders.resnet import ResNetEncoder
from pixelbert_plugin.errors import UserError
from unit.checkpoint.test_array_pickle import python2_pickle

BLOCKS = (1, 2, 1, 1)  # of the small networks that are computed
MEAN_BGR, STD_BGR = (103.530, 116.280, 123.675), (57.375, 57.120, 58.395)  # detectron2's defaults.py, and X-101's YAML
SIZES = [(64, 96), (75, 61), (96, 40)]
PLACES = {"stem": 0, "res2": 1, "res3": 2, "res4": 3, "res5": 4}


@dataclass(frozen=True)
class Source:
    """How a published network was trained."""

    stride_in_1x1: bool
    channels: str
    std: tuple[float, float, float]  # in the order of channels
    groups: int = 1
    has_statistics: bool = False


SOURCES = {
    "torchvision": Source(False, "RGB", STD_BGR[::-1], has_statistics=True),
    "msra": Source(True, "BGR", (1.0, 1.0, 1.0)),
    "caffe2": Source(False, "BGR", (1.0, 1.0, 1.0), groups=32),
    "caffe2_std": Source(False, "BGR", STD_BGR, groups=32, has_statistics=True),
}


class Small(ResNetEncoder):
    """A plain network of few blocks."""

    layers = BLOCKS


class SmallGrouped(ResNetEncoder):
    """A grouped one."""

    layers, groups, width_per_group = BLOCKS, 32, 8


registry.register_encoder("test_small_resnet")(Small)
registry.register_encoder("test_small_resnext")(SmallGrouped)


def shapes(blocks, groups: int) -> dict[str, tuple[int, ...]]:
    """detectron2's names of a bottleneck network's convolutions (modeling/backbone/resnet.py)."""
    found, channels = {"stem.conv1.weight": (64, 3, 7, 7)}, 64
    for stage, count in enumerate(blocks):
        width, out = (64 if groups == 1 else groups * 8) * 2**stage, 256 * 2**stage
        for block in range(count):
            place = f"res{stage + 2}.{block}"
            if block == 0:
                found[f"{place}.shortcut.weight"] = (out, channels, 1, 1)
            found[f"{place}.conv1.weight"] = (width, channels, 1, 1)
            found[f"{place}.conv2.weight"] = (width, width // groups, 3, 3)
            found[f"{place}.conv3.weight"] = (out, width, 1, 1)
            channels = out
    return found


def random_state(source: Source, blocks=BLOCKS, seed: int = 0) -> dict[str, Tensor]:
    draw, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes(blocks, source.groups).items():
        state[name] = torch.randn(shape, generator=draw) * (2 / np.prod(shape[1:])) ** 0.5
        if name == "stem.conv1.weight":
            state[name] /= torch.tensor(1.0 if source.std[0] != 1 else 57.0)  # inputs of some tens
        norm = name.replace(".weight", ".norm.")
        state[f"{norm}weight"] = 1 + 0.2 * torch.randn(shape[0], generator=draw)
        state[f"{norm}bias"] = 0.1 * torch.randn(shape[0], generator=draw)
        if source.has_statistics:
            state[f"{norm}running_mean"] = 0.1 * torch.randn(shape[0], generator=draw)
            state[f"{norm}running_var"] = 0.5 + torch.rand(shape[0], generator=draw)
    return state


def reference(state: dict[str, Tensor], image: Tensor, source: Source) -> Tensor:
    """C h w: the last feature map of one uint8 RGB image, as the source computes it."""

    def convolved(name: str, values: Tensor, stride: int, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        values = F.conv2d(values, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        scale, shift = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
        if f"{name}.norm.running_var" in state:
            values = values - state[f"{name}.norm.running_mean"][:, None, None]
            values = values / (state[f"{name}.norm.running_var"][:, None, None] + 1e-5).sqrt()
        return values * scale[:, None, None] + shift[:, None, None]

    is_bgr = source.channels == "BGR"
    values = image.float().flip(0) if is_bgr else image.float()
    mean = torch.tensor(MEAN_BGR if is_bgr else MEAN_BGR[::-1])
    values = ((values - mean[:, None, None]) / torch.tensor(source.std)[:, None, None])[None]
    values = F.max_pool2d(convolved("stem.conv1", values, 2).relu(), 3, 2, 1)
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            place, stride = f"res{stage + 2}.{block}", 2 if stage and not block else 1
            first, second = (stride, 1) if source.stride_in_1x1 else (1, stride)
            inner = convolved(f"{place}.conv1", values, first).relu()
            inner = convolved(f"{place}.conv2", inner, second, source.groups).relu()
            inner = convolved(f"{place}.conv3", inner, 1)
            values = (inner + (values if block else convolved(f"{place}.shortcut", values, stride))).relu()
    return values[0]


def as_detectron2(state, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def as_torchvision(state) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        stage, *rest = name.split(".")
        if rest[-2] == "norm":
            norm = {"shortcut": "downsample.1"}.get(rest[-3], rest[-3].replace("conv", "bn"))
            inner = f"{norm}.{rest[-1]}"
        else:
            inner = f"{'downsample.0' if rest[-2] == 'shortcut' else rest[-2]}.{rest[-1]}"
        found[inner if stage == "stem" else f"layer{PLACES[stage]}.{rest[0]}.{inner}"] = value
    return found


def as_caffe2(state) -> dict[str, np.ndarray]:
    """Blobs as the model zoos have them: res2_0_branch2a_bn_s."""
    branches = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    parts = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    found = {}
    for name, value in state.items():
        stage, *rest = name.split(".")
        is_norm = rest[-2] == "norm"
        if stage == "stem":
            blob = f"res_conv1_bn_{parts[rest[-1]]}" if is_norm else "conv1_w"
        else:
            branch = branches[rest[1]]
            blob = f"{stage}_{rest[0]}_{branch}_" + (f"bn_{parts[rest[-1]]}" if is_norm else "w")
        found[blob] = value.numpy()
    return found


def images() -> list[Tensor]:
    draw = torch.Generator().manual_seed(7)
    return [torch.randint(0, 256, (3, *size), generator=draw, dtype=torch.uint8) for size in SIZES]


def build(name: str, **params):
    kind = "test_small_resnext" if SOURCES[name].groups > 1 else "test_small_resnet"
    return registry.build("encoder", kind, {"max_pool": False, **params}, "model_config.pixelbert.image_encoder.params").eval()


def difference(encoder, state, source: Source) -> float:
    """The largest relative one over images of several sizes, which our encoder gets as one padded batch."""
    processor = registry.build("processor", "image", {"short_edge": 1, "long_edge": 1, "max_pixels": 10**9}, "i")
    given = images()
    height, width = (max(size[axis] for size in SIZES) for axis in (0, 1))
    padded = torch.zeros(len(given), 3, height, width)
    mean, std = (torch.tensor(getattr(processor.config, name))[:, None, None] for name in ("mean", "std"))
    for place, image in zip(padded, given, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = (image.float() / 255 - mean) / std
    with torch.no_grad():
        features = encoder(padded, torch.tensor(SIZES))
        found = 0.0
        for row, image in enumerate(given):
            expected = reference(state, image, source).flatten(1).T
            own = features.pixels[row][features.mask[row]]
            found = max(found, float((own - expected).abs().max() / expected.abs().max()))
    return found


def write(path, layout: str, state):
    if layout == "torchvision":
        torch.save(as_torchvision(state), path.with_suffix(".pth"))
        return path.with_suffix(".pth")
    if layout == "detectron2":
        others = {"roi_heads.box_predictor.cls_score.weight": torch.zeros(3, 4), "pixel_mean": torch.zeros(3)}
        torch.save({"model": {**as_detectron2(state, "backbone."), **others}, "iteration": 3}, path.with_suffix(".pth"))
        return path.with_suffix(".pth")
    blobs = {**as_caffe2(state), "fc1000_w": np.zeros((3, 4), np.float32), "lr": np.zeros(1, np.float32)}
    momenta = {f"{blob}_momentum": value for blob, value in blobs.items()}
    path.with_suffix(".pkl").write_bytes(pickle.dumps({"blobs": {**blobs, **momenta}}, protocol=2))
    return path.with_suffix(".pkl")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("torchvision", "torchvision"),
        ("torchvision", "detectron2"),
        ("msra", "caffe2"),
        ("msra", "detectron2"),
        ("caffe2", "caffe2"),
        ("caffe2_std", "detectron2"),
    ],
)
def test_a_file_of_each_convention_in_each_layout_gives_its_features(tmp_path, name, layout):
    source, state = SOURCES[name], random_state(SOURCES[name])
    path = write(tmp_path / "a", layout, state)
    encoder = build(name, weights=str(path), weights_format=name, norm="frozen")
    assert difference(encoder, state, source) < 1e-4
    assert encoder.stride_in_1x1 is source.stride_in_1x1
    if layout == "caffe2":  # from a checkpoint alone
        again = registry.build("encoder", registry.place_of(encoder).name, encoder.portable(), "e")
        again.load_state_dict(encoder.state_dict())
        assert difference(again.eval(), state, source) < 1e-4


@pytest.mark.parametrize(
    ("name", "other", "what"),
    [("msra", "caffe2", "stride_in_1x1"), ("caffe2", "caffe2_std", "divides"), ("caffe2_std", "torchvision", "is_bgr")],
)
def test_one_wrong_convention_gives_other_features(tmp_path, name, other, what):
    """Names and shapes fit all the same, which is why a source is recognised or asked for."""
    conventions = [dataclasses.asdict(FORMATS[each]) for each in (name, other)]
    assert [key for key in conventions[0] if conventions[0][key] != conventions[1][key]] == [what]
    state = random_state(SOURCES[name])
    path = write(tmp_path / "a", "detectron2", state)
    assert difference(build(name, weights=str(path), weights_format=other, norm="frozen"), state, SOURCES[name]) > 0.05


PUBLISHED = [  # blocks, groups, layout, prefix, other names of the file, and what it is
    ((3, 4, 6, 3), 1, "caffe2", "", ["fc1000_w"], "msra"),  # MSRA/R-50.pkl
    ((3, 4, 23, 3), 1, "caffe2", "", ["fc1000_w"], "msra"),  # MSRA/R-101.pkl
    ((3, 4, 23, 3), 32, "caffe2", "", ["pred_w"], "caffe2_std"),  # FAIR/X-101-32x8d.pkl
    ((3, 8, 36, 3), 32, "caffe2", "", ["pred_w"], "caffe2"),  # FAIR/X-152-32x8d-IN5k.pkl
    ((3, 4, 6, 3), 1, "detectron2", "backbone.", ["roi_heads.box_predictor.attr_score.weight"], "msra"),  # grid-feats R-50.pth
    ((3, 4, 23, 3), 32, "detectron2", "backbone.", ["roi_heads.box_predictor.attr_score.weight"], "caffe2_std"),  # X-101.pth
    ((3, 8, 36, 3), 32, "detectron2", "backbone.", ["roi_heads.box_predictor.attr_score.weight"], None),  # X-152.pth
    ((3, 4, 6, 3), 1, "detectron2", "cnn.feature.backbone.", ["transformer.bert.pooler.dense.weight"], "msra"),  # ClipBERT's
    ((3, 4, 6, 3), 1, "detectron2", "backbone.bottom_up.", ["backbone.fpn_lateral2.weight"], None),  # a detector with FPN
    ((3, 4, 6, 3), 1, "torchvision", "", ["fc.weight"], "torchvision"),
]
ENCODERS = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnext152_32x8d"}


@pytest.mark.parametrize(("blocks", "groups", "layout", "prefix", "others", "expected"), PUBLISHED)
def test_names_and_shapes_of_what_was_published_are_all_used_or_named(blocks, groups, layout, prefix, others, expected):
    """Shapes alone: the tensors take no memory to speak of, one number stands for each."""
    made = {}
    for name, shape in shapes(blocks, groups).items():
        made[name] = torch.zeros(()).expand(shape)
        norm = name.replace(".weight", ".norm.")
        parts = ("weight", "bias") if layout == "caffe2" else ("weight", "bias", "running_mean", "running_var")
        made |= {f"{norm}{part}": torch.full((), 0.5).expand(shape[0]) for part in parts}
    content = as_caffe2(made) if layout == "caffe2" else as_torchvision(made) if layout == "torchvision" else made
    content = {f"{prefix}{name}": value for name, value in content.items()} | {name: torch.zeros(2) for name in others}
    found = read_layout(content)
    assert recognised(found) == expected and found.left_out == others
    name = "resnext101_32x8d" if groups == 32 and blocks == (3, 4, 23, 3) else ENCODERS[blocks]
    with torch.device("meta"):
        own = registry.build("encoder", name, {}, "e").resnet.state_dict()
    wanted = {key: tuple(value.shape) for key, value in own.items() if not key.endswith("num_batches_tracked")}
    assert {key: tuple(value.shape) for key, value in found.tensors.items()} == wanted


def test_the_source_is_recognised_or_asked_for(tmp_path):
    state = random_state(SOURCES["msra"])
    path = write(tmp_path / "blobs", "caffe2", state)
    assert difference(build("msra", weights=str(path), norm="frozen"), state, SOURCES["msra"]) < 1e-4  # nothing is asked
    path = write(tmp_path / "detector", "detectron2", state)
    with pytest.raises(UserError, match=r"params.weights_format: '.*detector.pth' has detectron2's names, which networks of"):
        build("msra", weights=str(path), norm="frozen")
    converted = {"model": {name: value.numpy() for name, value in random_state(SOURCES["torchvision"]).items()}}
    (tmp_path / "r50.pkl").write_bytes(pickle.dumps({**converted, "__author__": "torchvision", "matching_heuristics": True}))
    built = build("torchvision", weights=str(tmp_path / "r50.pkl"))  # convert-torchvision-to-d2.py's: its norms can be trained
    assert difference(built, random_state(SOURCES["torchvision"]), SOURCES["torchvision"]) < 1e-4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stride_in_1x1": False, "norm": "frozen"}, r"params.stride_in_1x1: False, but '.*' is msra's, trained with True"),
        ({"norm": "trainable"}, r"params.norm: 'trainable', but the batch norms of '.*' are a scale and a shift .*norm=frozen"),
        ({}, "set norm=frozen"),
    ],
)
def test_a_contradiction_is_refused_with_the_line_that_mends_it(tmp_path, params, message):
    path = write(tmp_path / "a", "caffe2", random_state(SOURCES["msra"]))
    with pytest.raises(UserError, match=message):
        build("msra", weights=str(path), **params)


def test_other_networks_are_refused_by_name(tmp_path):
    state = random_state(SOURCES["msra"])
    for change, message in (
        ({"res4_0_branch2b_offset_w": np.zeros(2)}, "deformable convolutions .*X-152.pth is the like without"),
        ({"res2_0_branch2a_gn_s": np.zeros(2)}, "group normalization"),
    ):
        with pytest.raises(ValueError, match=message):
            read_layout({**as_caffe2(state), **change})
    with pytest.raises(ValueError, match="deformable convolutions"):
        read_layout({**as_detectron2(state, "backbone."), "backbone.res4.0.conv2_offset.weight": torch.zeros(2)})
    path = write(tmp_path / "a", "caffe2", {name: value for name, value in state.items() if "res3.1" not in name})
    with pytest.raises(
        UserError, match=r"'.*a.pkl' is of another network than this encoder \(15 tensors missing, such as layer2"
    ):
        build("msra", weights=str(path), norm="frozen")
    with pytest.raises(UserError, match="this ResNet's blocks have no 1×1 convolution to stride in"):
        registry.build("encoder", "resnet18", {"stride_in_1x1": True}, "e")


def test_the_option_has_every_format():
    assert get_args(Format) == ("auto", *FORMATS)


def test_a_pickle_of_python_2_is_read(tmp_path):
    state = random_state(SOURCES["msra"])
    (tmp_path / "R-50.pkl").write_bytes(python2_pickle(as_caffe2(state)))
    built = build("msra", weights=str(tmp_path / "R-50.pkl"), norm="frozen")
    assert difference(built, state, SOURCES["msra"]) < 1e-4


def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"conv1_w": np.zeros(3, np.float32), "x": Hostile()}))
    with pytest.raises(UserError, match=r"params.weights: .*a.pkl': names builtins.eval, which no file of weights needs"):
        build("msra", weights=str(tmp_path / "a.pkl"), norm="frozen")
    assert not (tmp_path / "ran").exists()
