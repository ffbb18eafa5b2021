"""What is to be written: pictures with their scenes, and text files. Planned whole before anything is drawn."""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.scenes import HELD_OUT, Kind, Scene, draw_scene, place
from pixelbert_plugin.seeding import derive


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image file. Equal scene, seed and encoding make equal bytes: so data sets share an image."""

    path: str  # below the world's folder
    image_id: int  # in its data set
    part: str  # the split that its data set says it is of, such as "restval"
    scene: Scene  # placed
    seed: int  # of ground, light and noise
    encoding: str = "jpeg"  # see draw.encode


@dataclass(kw_only=True)
class Plan:
    pictures: list[Picture] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # text by path
    counts: dict[str, int] = field(default_factory=dict)  # for the summary
    baselines: dict[str, Any] = field(default_factory=dict)


def generator(config: WorldConfig, *parts: int | str) -> Random:
    """The generator of one part of the world."""
    return Random(derive(config.seed, *parts))


def as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def scenes(config: WorldConfig, name: str, split: str, number: int, share: float = 0.0, distinct: bool = False) -> list[Scene]:
    """`number` scenes of `split`. share: of these, so many hold a held-out pair. distinct: no two hold the same figures.

    Distinct ones are for a retrieval test, whose captions should tell the images apart.
    """
    random, found, seen = generator(config, name), [], set()
    for index in range(number):
        held_out = int((index + 1) * share) > int(index * share)
        wanted = (Kind(*random.choice(HELD_OUT)),) if held_out else ()
        scene = draw_scene(random, split, wanted, accept=lambda scene: not distinct or scene.pairs() not in seen)
        seen.add(scene.pairs())
        found.append(scene)
    return found


def picture(config: WorldConfig, path: str, scene: Scene, size: tuple[int, int] | None = None, **fields: Any) -> Picture:
    """A picture of the scene, placed and drawn by seeds of its own path. size: width and height; None: by the seed too."""
    placed = place(scene, generator(config, "place", path), size)
    return Picture(path=path, scene=placed, seed=derive(config.seed, "pixels", path), **fields)
