"""The miniature world's ImageNet: small images of one figure each, and a ResNet-18 taught to tell them apart.

The paper's CNN starts from ImageNet, so its pre-training need not teach what a shape looks like. From random weights masked
words teach the colours within a few hundred updates, but hardly the shapes: a classifier learns both in as many.
N images, S pixels a side, C classes: the pairs of colour and shape that are not held out.
"""

from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin.errors import replacing
from pixelbert_plugin.miniature.draw import render
from pixelbert_plugin.miniature.options import BACKBONE_SIDE, WorldConfig
from pixelbert_plugin.miniature.scenes import SEEN, Figure, Scene
from pixelbert_plugin.seeding import derive

SIDE = BACKBONE_SIDE  # as figures are drawn; for a larger side they are enlarged, as scenes are for larger images
DIAMETERS = (15, 27)  # pixels: those of a scene's figures once the images are resized to a short edge of 64
NUM_TRAIN, NUM_VAL, BATCH = 8000, 500, 96  # images
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0…1: the image processor's defaults
LEARNING_RATE, WARMUP_UPDATES = 1e-3, 50


def write_backbone(path: Path, config: WorldConfig, side: int = SIDE) -> float:
    """Train ResNet-18 and write its weights, torchvision's names without the classifier. Returns its accuracy, 0…1."""
    from safetensors.torch import save_file

    state, accuracy = train_backbone(config, side)
    with replacing(path) as aside:
        save_file(state, aside)
    return accuracy


def train_backbone(config: WorldConfig, side: int = SIDE) -> tuple[dict[str, Tensor], float]:
    """State dict, and accuracy on images that were not trained on, of `side` pixels. A function of the seed, up to the CPU's
    rounding."""
    from torchvision.models import resnet18

    num_train = min(NUM_TRAIN, config.backbone_updates * BATCH)  # no more than a short training looks at
    images_N3SS, classes_N = figures(Random(derive(config.seed, "backbone")), num_train + NUM_VAL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "backbone weights"))
        net = resnet18(num_classes=len(SEEN)).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, fused=True)
        total = config.backbone_updates
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARMUP_UPDATES, total_iters=WARMUP_UPDATES),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - WARMUP_UPDATES)),
            ],
            milestones=[WARMUP_UPDATES],
        )
        for _ in range(total):
            batch = torch.randint(NUM_VAL, len(classes_N), (BATCH,))
            F.cross_entropy(net(enlarged(images_N3SS[batch], side)), classes_N[batch]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
    with torch.no_grad():
        is_right = net.eval()(enlarged(images_N3SS[:NUM_VAL], side)).argmax(1) == classes_N[:NUM_VAL]
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    return state, is_right.float().mean().item()


def figures(random: Random, number: int) -> tuple[Tensor, Tensor]:
    """N 3 S S float32, normalised as the image processor does by default; N int64, indices into SEEN."""
    images, classes = np.empty((number, SIDE, SIDE, 3), dtype=np.float32), []
    for image in images:
        classes.append(random.randrange(len(SEEN)))
        color, shape = SEEN[classes[-1]]
        diameter = random.randint(*DIAMETERS)
        x, y = (random.randint(diameter // 2, SIDE - diameter + diameter // 2) for _ in range(2))
        angle = random.uniform(-12, 12)
        figure = Figure(shape=shape, color=color, size="", row=0, column=0, x=x, y=y, diameter=diameter, angle=angle)
        image[:] = np.asarray(
            render(Scene(rows=1, columns=1, figures=(figure,), width=SIDE, height=SIDE), random.getrandbits(63))
        )
    mean, std = (np.asarray(values, dtype=np.float32) * 255 for values in (MEAN, STD))
    return torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2).contiguous(), torch.tensor(classes)


def enlarged(images_N3SS: Tensor, side: int) -> Tensor:
    """N 3 `side` `side`: as the image processor enlarges a scene, so that a figure looks as it does there."""
    if side == images_N3SS.shape[-1]:
        return images_N3SS
    return F.interpolate(images_N3SS, (side, side), mode="bilinear", align_corners=False)
