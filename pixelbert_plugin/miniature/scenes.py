"""Scenes: one to four figures on a grid of six cells, and where they come to lie in an image.

A scene belongs to train, val or test by a hash of its figures with their cells, so that no split's scene recurs in
another, whatever the seed. Four of the 36 pairs of colour and shape are held out of everything that trains.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from pixelbert_plugin.seeding import derive

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "white")
SIZES = ("small", "large")
HELD_OUT = (("yellow", "circle"), ("blue", "star"), ("red", "cross"), ("green", "ring"))
PAIRS = tuple((color, shape) for color in COLORS for shape in SHAPES)
SEEN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)

SPLIT_TENTHS = {"train": range(0, 6), "val": range(6, 8), "test": range(8, 10)}  # of all scenes
COUNTS = {1: 10, 2: 40, 3: 36, 4: 14}  # figures in a scene: weight
IMAGE_SIZES = ((96, 72), (90, 80), (112, 72), (72, 96), (72, 112))  # width, height
DIAMETERS = {"small": (18, 21), "large": (26, 30)}  # pixels
MAX_JITTER = 5  # pixels a centre lies off its cell's
MARGIN = 15  # pixels two centres differ by where a relation holds; within a row or column they differ by at most 10


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One drawn thing. Its cell is decided with the scene, x to angle when the scene is placed in an image."""

    shape: str
    color: str
    size: str
    row: int
    column: int
    x: int = 0  # centre, pixels from the left
    y: int = 0  # centre, pixels from the top
    diameter: int = 0  # pixels
    angle: float = 0.0  # degrees

    @property
    def pair(self) -> tuple[str, str]:
        return self.color, self.shape

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width and height in pixels."""
        return self.x - self.diameter // 2, self.y - self.diameter // 2, self.diameter, self.diameter


@dataclass(frozen=True, kw_only=True)
class Scene:
    rows: int  # 2 where it is wide, 3 where it is tall
    columns: int
    figures: tuple[Figure, ...]
    width: int = 0  # pixels, once it is placed
    height: int = 0

    def key(self) -> str:
        """The figures with their cells, in an order of their own: equal for equal scenes."""
        figures = sorted((item.shape, item.color, item.size, item.row, item.column) for item in self.figures)
        return json.dumps([self.rows, self.columns, figures])

    def split(self) -> str:
        tenth = derive(0, "split of a scene", self.key()) % 10
        return next(split for split, tenths in SPLIT_TENTHS.items() if tenth in tenths)

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Colour and shape of every figure, sorted: what a caption can tell apart whatever the places."""
        return tuple(sorted(item.pair for item in self.figures))

    def has_held_out(self) -> bool:
        return any(item.pair in HELD_OUT for item in self.figures)


@dataclass(frozen=True)
class Kind:
    """What a word group refers to: figures of this colour and shape, each free where it is None."""

    color: str | None = None
    shape: str | None = None

    def matches(self, color: str, shape: str) -> bool:
        return self.color in (None, color) and self.shape in (None, shape)

    def count(self, scene: Scene) -> int:
        return sum(self.matches(*item.pair) for item in scene.figures)


def draw_scene(
    random: Random,
    split: str,
    wanted: tuple[Kind, ...] = (),
    *,
    avoid: Kind | None = None,
    count: int | None = None,
    accept: Callable[[Scene], bool] = lambda scene: True,
) -> Scene:
    """A random scene of `split` that holds a figure of each kind of `wanted` and otherwise none of the kind `avoid`.

    Held-out pairs occur only where a kind of `wanted` names one. count: its number of figures. `accept` may refuse it.
    """
    while True:
        number = count or max(len(wanted), random.choices(list(COUNTS), list(COUNTS.values()))[0])
        pairs = [random.choice(fitting(kind)) for kind in wanted]
        while len(pairs) < number:
            pair = _next_pair(random, pairs, avoid)
            if not (avoid and avoid.matches(*pair)):
                pairs.append(pair)
        rows, columns = random.choice(((2, 3), (3, 2)))
        cells = random.sample([(row, column) for row in range(rows) for column in range(columns)], number)
        figures = tuple(
            Figure(color=color, shape=shape, size=random.choice(SIZES), row=row, column=column)
            for (color, shape), (row, column) in zip(pairs, cells, strict=True)
        )
        scene = Scene(rows=rows, columns=columns, figures=figures)
        if scene.split() == split and accept(scene):
            return scene


def fitting(kind: Kind) -> list[tuple[str, str]]:
    """The pairs that a figure of `kind` may have: held-out ones only where it names both colour and shape."""
    return [pair for pair in (PAIRS if kind.color and kind.shape else SEEN) if kind.matches(*pair)]


def _next_pair(random: Random, pairs: list[tuple[str, str]], avoid: Kind | None) -> tuple[str, str]:
    """Mostly any pair; at times one that repeats a colour or shape of the scene, or shares one with what is avoided."""
    draw = random.random()
    if avoid is not None and draw < 0.4 and avoid.color and avoid.shape:
        near = random.choice((Kind(color=avoid.color), Kind(shape=avoid.shape)))
        return random.choice(fitting(near))
    if pairs and draw > 0.6:
        color, shape = random.choice(pairs)
        return random.choice(fitting(Kind(color=color) if draw > 0.8 else Kind(shape=shape)))
    return random.choice(SEEN)


def place(scene: Scene, random: Random, size: tuple[int, int] | None = None) -> Scene:
    """The scene in an image: its size, and every figure's centre, diameter and angle. Figures keep to their cells."""
    wide = scene.columns > scene.rows
    width, height = size or random.choice([size for size in IMAGE_SIZES if (size[0] > size[1]) == wide])
    cell_width, cell_height = width // scene.columns, height // scene.rows
    figures = []
    for item in scene.figures:
        low, high = DIAMETERS[item.size]
        diameter = random.randint(low, min(high, cell_width - 2, cell_height - 2))
        x, y = (
            place * cell + cell // 2 + random.randint(-slack, slack)
            for place, cell in ((item.column, cell_width), (item.row, cell_height))
            for slack in [min(MAX_JITTER, (cell - diameter) // 2)]
        )
        figures.append(replace(item, x=x, y=y, diameter=diameter, angle=round(random.uniform(-12, 12), 1)))
    return replace(scene, width=width, height=height, figures=tuple(figures))


RELATIONS: dict[str, Callable[[Figure, Figure], bool]] = {
    "left of": lambda one, other: other.x - one.x >= MARGIN,
    "right of": lambda one, other: one.x - other.x >= MARGIN,
    "above": lambda one, other: other.y - one.y >= MARGIN,
    "below": lambda one, other: one.y - other.y >= MARGIN,
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def relations(one: Figure, other: Figure) -> list[str]:
    """How `one` lies to `other`: at most one of left and right, at most one of above and below."""
    return [name for name, holds in RELATIONS.items() if holds(one, other)]
