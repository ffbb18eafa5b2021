"""Drawing: a placed scene → pixels with uneven ground, light, blur and noise → an image file."""

import io
import math
from collections.abc import Collection
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pixelbert_plugin.miniature.scenes import Figure, Scene

RGB = {
    "red": (215, 35, 35),
    "green": (30, 165, 55),
    "blue": (35, 70, 220),
    "yellow": (240, 215, 40),
    "purple": (165, 50, 195),
    "white": (242, 242, 242),
}
OVERSAMPLING = 4  # figures are drawn this much larger, then reduced, so that their edges are smooth


def render(scene: Scene, seed: int, hidden: Collection[int] = ()) -> Image.Image:
    """The scene as an RGB image, with its own ground, light, colours, blur and noise by `seed`. The figures at the places
    `hidden` are left out, and nothing else changes but the light by less than a grey level or two."""
    random = Random(seed)
    image = Image.fromarray(_ground(scene.width, scene.height, random))
    for place, figure in enumerate(scene.figures):
        left, top, side, _ = figure.box
        color = tuple(min(255, max(0, value + random.randint(-18, 18))) for value in RGB[figure.color])
        if place not in hidden:
            image.paste(color, (left, top, left + side, top + side), _mask(figure))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.7)))
    pixels_HW3 = np.asarray(image, dtype=np.float32)
    mean = pixels_HW3.mean()
    pixels_HW3 = (pixels_HW3 - mean) * random.uniform(0.85, 1.15) + mean * random.uniform(0.8, 1.15)
    noise = np.random.default_rng(random.getrandbits(63)).standard_normal(pixels_HW3.shape, dtype=np.float32)
    pixels_HW3 += noise * random.uniform(0.8, 2.8)
    return Image.fromarray(pixels_HW3.clip(0, 255).round().astype(np.uint8))


def encode(image: Image.Image, encoding: str) -> bytes:
    """The bytes of an image file; encoding: "jpeg", "png" or "rgba" (a PNG with an opaque alpha channel)."""
    buffer = io.BytesIO()
    if encoding == "jpeg":
        image.save(buffer, "JPEG", quality=92)
    else:
        (image.convert("RGBA") if encoding == "rgba" else image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def write_image(path: Path, scene: Scene, seed: int, encoding: str) -> None:
    path.write_bytes(encode(render(scene, seed), encoding))


def _ground(width: int, height: int, random: Random) -> np.ndarray:
    """A gradient between two muted grey-brown tones, H × W × 3 uint8."""
    tones = []
    for _ in range(2):
        grey, brown = random.randint(70, 130), random.randint(0, 18)
        tones.append((grey + brown, grey + brown // 4, grey - brown))
    angle = random.uniform(0, 2 * math.pi)
    rows_HW, columns_HW = np.mgrid[0:height, 0:width]
    along_HW = rows_HW / height * math.sin(angle) + columns_HW / width * math.cos(angle)
    along_HW = (along_HW - along_HW.min()) / (along_HW.max() - along_HW.min())
    ground_HW3 = np.array(tones[0]) + along_HW[..., None] * (np.array(tones[1]) - np.array(tones[0]))
    return ground_HW3.round().astype(np.uint8)


def _mask(figure: Figure) -> Image.Image:
    """The silhouette in a square as wide as the figure: 255 inside."""
    side = figure.diameter * OVERSAMPLING
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    if figure.shape in ("circle", "ring"):
        draw.ellipse((0, 0, side - 1, side - 1), fill=255)
        if figure.shape == "ring":
            rim = round(0.22 * side)
            draw.ellipse((rim, rim, side - 1 - rim, side - 1 - rim), fill=0)
    else:
        draw.polygon([(side / 2 + x * side / 2, side / 2 + y * side / 2) for x, y in _outline(figure)], fill=255)
    return mask.resize((figure.diameter, figure.diameter), Image.Resampling.BOX)


def _outline(figure: Figure) -> list[tuple[float, float]]:
    """Corners on a scale of -1…1, turned by the figure's angle."""
    if figure.shape == "square":
        corners = [(-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78)]
    elif figure.shape == "triangle":
        corners = [(0, -0.95), (0.9, 0.75), (-0.9, 0.75)]
    elif figure.shape == "star":
        turns = [(math.pi * step / 5, 1.0 if step % 2 == 0 else 0.42) for step in range(10)]
        corners = [(radius * math.sin(turn), -radius * math.cos(turn)) for turn, radius in turns]
    else:  # cross
        arm, end = 0.3, 0.95
        corners = [(-arm, -end), (arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm)]
        corners += [(arm, end), (-arm, end), (-arm, arm), (-end, arm), (-end, -arm), (-arm, -arm)]
    turn = math.radians(figure.angle)
    return [(x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)) for x, y in corners]
