"""The CNN of the models that are graded: it learns to name the figure at each pixel of its grid, as detectors' CNNs do.

The miniature world's ResNet-18, which knows single figures, goes on with scenes. So what is left to learn is questions.
I scenes, S pixels a side, G cells a side, C classes: the pairs of colour and shape, and ground.
"""

from pathlib import Path
from random import Random

import explanation_scenes as scenes
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin.errors import replacing
from pixelbert_plugin.miniature.backbone import MEAN, STD, train_backbone
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.scenes import SEEN, Scene
from pixelbert_plugin.seeding import derive

STRIDE, BATCH = 8, 24
GROUND = len(SEEN)  # the class of cells that look at no figure
LEARNING_RATE = 1e-3
FACTOR = 1 / 8  # on the features, so that a position's vector is not lost beside them before the layer norm


def classes_of(scene: Scene) -> Tensor:
    """G G int64: whose box each cell looks into. Cell (r, c) looks at the pixel in row 8 r and column 8 c (`grid_centres`)."""
    cells = scenes.SIDE // STRIDE
    found = torch.full((cells, cells), GROUND)
    for place, figure in enumerate(scene.figures):
        inside = torch.from_numpy(scenes.inside(scene, (place,)))[::STRIDE, ::STRIDE]
        found[inside] = SEEN.index(figure.pair)
    return found


def drawn(random: Random, number: int) -> tuple[Tensor, Tensor]:
    """I 3 S S float32, normalised as the image processor does by default; I G G int64."""
    images, classes = [], []
    for _ in range(number):
        scene = scenes.draw_scene(random)
        images.append(np.asarray(scenes.picture(scene, random.getrandbits(63)), dtype=np.float32))
        classes.append(classes_of(scene))
    mean, std = (np.asarray(values, dtype=np.float32) * 255 for values in (MEAN, STD))
    return torch.from_numpy((np.stack(images) - mean) / std).permute(0, 3, 1, 2).contiguous(), torch.stack(classes)


@torch.no_grad()
def scale(stage: torch.nn.Sequential, factor: float) -> None:
    """Multiply what a stage of two basic blocks gives, and change nothing else: its first block gives `factor` times as much,
    which the second block's first convolution takes back."""
    first, second = (block for block in stage)
    for norm in (first.bn2, first.downsample[1], second.bn2):
        norm.weight.mul_(factor)
        norm.bias.mul_(factor)
    second.conv1.weight.div_(factor)


def write_backbone(path: Path, single_updates: int, scene_updates: int) -> float:
    """Train it and write its weights, torchvision's names. Returns the share of cells with a figure that are named rightly."""
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    state, _ = train_backbone(WorldConfig(out=str(path.parent), backbone_updates=single_updates))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(1, "explanation backbone"))
        net = resnet18()
        net.load_state_dict(state, strict=False)
        head = torch.nn.Conv2d(128, GROUND + 1, 1)
        layers = torch.nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, head)
        optimizer = torch.optim.AdamW(layers.train().parameters(), lr=LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=scene_updates)
        weight = torch.ones(GROUND + 1)
        weight[GROUND] = 0.2  # four cells in five
        random = Random(derive(1, "explanation backbone's scenes"))
        for update in range(1, scene_updates + 1):
            images, classes = drawn(random, BATCH)
            loss = F.cross_entropy(layers(images), classes, weight)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            if update % 20 == 0:
                print(f"backbone: update {update}, loss {float(loss.detach()):.3f}", flush=True)
    images, classes = drawn(Random(derive(2, "explanation backbone's scenes")), 100)
    with torch.no_grad():
        found = layers.eval()(images).argmax(1)
    is_figure = classes != GROUND
    scale(net.layer2, FACTOR)
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    with replacing(path) as aside:
        save_file(state, aside)
    return float((found == classes)[is_figure].float().mean())
