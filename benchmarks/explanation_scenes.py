"""Scenes for grading explanations: figures anywhere in a picture, and questions whose figures are known.

The miniature world's drawing, but no cells: a figure may lie at any place, so that no place is likelier than another by much,
the centre least of all by being the mean of six cells. As a data set (`explanation_scenes`) and as objects, by seed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from pixelbert_plugin import Builder, Sample, register_builder
from pixelbert_plugin.data.builders.base import BuilderConfig
from pixelbert_plugin.data.files import read_json
from pixelbert_plugin.miniature.draw import render
from pixelbert_plugin.miniature.language import plural
from pixelbert_plugin.miniature.scenes import COLORS, SEEN, SHAPES, Figure, Scene
from pixelbert_plugin.seeding import derive

SIDE = 48  # pixels of a picture: 6 × 6 cells at stride 8
DIAMETERS = (11, 15)  # pixels
GAP = 2  # pixels between two figures' boxes
OFF_MIDDLE = 4  # pixels that a figure's centre is off the middle line where its quadrant is asked for
NUMBERS = {2: 3, 3: 4, 4: 3}  # figures in a scene: weight
KINDS = ("color", "shape", "where", "exists", "count")


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    figures: tuple[int, ...]  # those that it is about, by their places in the scene; () where there is none


def draw_scene(random: Random) -> Scene:
    """Two to four figures without overlap, of pairs of colour and shape that the world's backbone has seen."""
    number = random.choices(list(NUMBERS), list(NUMBERS.values()))[0]
    figures: list[Figure] = []
    while len(figures) < number:
        color, shape = random.choice(SEEN)
        if figures and random.random() < 0.35:  # so that there is something to count
            color, shape = random.choice([pair for pair in SEEN if figures[0].shape == pair[1] or figures[0].color == pair[0]])
        diameter = random.randint(*DIAMETERS)
        figure = Figure(
            shape=shape, color=color, size="", row=0, column=0, diameter=diameter, angle=round(random.uniform(-12, 12), 1)
        )
        placed = somewhere(random, figure, figures)
        if placed is None:
            figures.clear()
        else:
            figures.append(placed)
    return Scene(rows=1, columns=1, figures=tuple(figures), width=SIDE, height=SIDE)


def somewhere(random: Random, figure: Figure, others: list[Figure]) -> Figure | None:
    """The figure at a random place that no other takes; None where 50 places were taken."""
    low = figure.diameter // 2
    high = SIDE - figure.diameter + low
    for _ in range(50):
        placed = replace(figure, x=random.randint(low, high), y=random.randint(low, high))
        if not any(_touch(placed, other) for other in others):
            return placed
    return None


def _touch(one: Figure, other: Figure) -> bool:
    apart = (one.diameter + other.diameter) / 2 + GAP
    return abs(one.x - other.x) < apart and abs(one.y - other.y) < apart


def quadrant(figure: Figure) -> str | None:
    """ "top left", …; None for a figure near a middle line."""
    across, down = figure.x - SIDE / 2, figure.y - SIDE / 2
    if min(abs(across), abs(down)) < OFF_MIDDLE:
        return None
    return f"{'top' if down < 0 else 'bottom'} {'left' if across < 0 else 'right'}"


def questions(scene: Scene, random: Random) -> dict[str, list[Question]]:
    """By kind, what can be asked with one certain answer. Of yes and no as many as there can be of both."""
    found: dict[str, list[Question]] = {kind: [] for kind in KINDS}
    figures = scene.figures
    shapes, colors = [figure.shape for figure in figures], [figure.color for figure in figures]
    for place, figure in enumerate(figures):
        if shapes.count(figure.shape) == 1:
            name = f"the {figure.shape}"
            found["color"].append(Question("color", f"what color is {name}?", figure.color, (place,)))
            if (answer := quadrant(figure)) is not None:
                found["where"].append(Question("where", f"where is {name}?", answer, (place,)))
        if colors.count(figure.color) == 1:
            text = f"what shape is the {figure.color} object?"
            found["shape"].append(Question("shape", text, figure.shape, (place,)))
    pairs = [figure.pair for figure in figures]
    for pair in dict.fromkeys(pairs):
        places = tuple(place for place, other in enumerate(pairs) if other == pair)
        found["exists"].append(Question("exists", f"is there a {' '.join(pair)}?", "yes", places))
    near = [pair for pair in SEEN if pair not in pairs and (pair[0] in colors or pair[1] in shapes)]
    found["exists"] += [
        Question("exists", f"is there a {' '.join(pair)}?", "no", ()) for pair in random.sample(near, len(set(pairs)))
    ]
    for values, choices, noun in ((shapes, SHAPES, plural), (colors, COLORS, lambda color: f"{color} objects")):
        absent = random.choice([each for each in choices if each not in values])
        for value in [*dict.fromkeys(values), *([absent] if random.random() < 0.5 else [])]:
            places = tuple(place for place, other in enumerate(values) if other == value)
            found["count"].append(Question("count", f"how many {noun(value)} are there?", str(len(places)), places))
    return found


def changed(scene: Scene, question: Question, random: Random) -> tuple[Scene, Question] | None:
    """The scene in which only a figure that is asked about is another, such that the answer is another; with the question of
    that answer. None where there is no such scene."""
    for place in random.sample(question.figures, len(question.figures)):
        figure, others = scene.figures[place], _without(scene, place)
        for _ in range(60):
            color, shape = random.choice(SEEN)
            other: Figure | None
            if question.kind == "where":
                other = somewhere(random, figure, others)
            elif question.kind == "color":
                other = replace(figure, color=color)
            elif question.kind == "shape":
                other = replace(figure, shape=shape)
            else:
                other = replace(figure, color=color, shape=shape)
            if other is not None and other.pair in SEEN:
                found = with_figure(scene, place, other)
                if (again := same_text(found, question, random)) is not None and again.answer != question.answer:
                    return found, again
    return None


def moved(scene: Scene, question: Question, random: Random) -> tuple[Scene, Question] | None:
    """The scene in which only the figure that is asked about (of several the first) lies elsewhere, no part of it where it was;
    with the question of the answer there. None where there is no such scene."""
    place = question.figures[0]
    figure, others = scene.figures[place], _without(scene, place)
    for _ in range(100):
        other = somewhere(random, figure, others)
        if other is not None and not _touch(other, figure):
            found = with_figure(scene, place, other)
            if (again := same_text(found, question, random)) is not None:
                return found, again
    return None


def same_text(scene: Scene, question: Question, random: Random) -> Question | None:
    """The question, in its words, of another scene; None where it has no certain answer there."""
    found = questions(scene, random)[question.kind]
    return next((each for each in found if each.text == question.text), None)


def _without(scene: Scene, place: int) -> list[Figure]:
    return [other for at, other in enumerate(scene.figures) if at != place]


def with_figure(scene: Scene, place: int, figure: Figure) -> Scene:
    return replace(scene, figures=(*scene.figures[:place], figure, *scene.figures[place + 1 :]))


def inside(scene: Scene, places: tuple[int, ...]) -> np.ndarray:
    """H W bool: the boxes of these figures."""
    found = np.zeros((scene.height, scene.width), dtype=bool)
    for place in places:
        left, top, side, _ = scene.figures[place].box
        found[top : top + side, left : left + side] = True
    return found


def asked(random: Random, number: int) -> Iterator[tuple[Scene, list[Question]]]:
    """`number` scenes with their questions, two of a kind at most."""
    for _ in range(number):
        scene = draw_scene(random)
        chosen = [
            question for found in questions(scene, random).values() for question in random.sample(found, min(2, len(found)))
        ]
        yield scene, chosen


def write(folder: Path, seed: int, sizes: dict[str, int]) -> None:
    """PNG files and a JSON file of questions for each split. A folder that has them is left as it is."""
    for split, number in sizes.items():
        if (target := folder / f"{split}.json").exists():
            continue
        rows: list[dict[str, Any]] = []
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index, (scene, chosen) in enumerate(asked(Random(derive(seed, "explanation scenes", split)), number)):
            name = f"{split}/{index}.png"
            picture(scene, derive(seed, split, index)).save(folder / name)
            rows += [{"image": name, "question": item.text, "answer": item.answer, "kind": item.kind} for item in chosen]
        target.write_text(json.dumps(rows), encoding="utf-8")


def picture(scene: Scene, seed: int, hidden: tuple[int, ...] = ()) -> Image.Image:
    return render(scene, seed, hidden)


@dataclass(kw_only=True)
class ScenesConfig(BuilderConfig):
    annotations: str = "{split}.json"  # file of a split, below env.data_dir


@register_builder("explanation_scenes")
class ScenesBuilder(Builder):
    """Questions about figures anywhere in a picture."""

    Config = ScenesConfig

    def samples(self, split: str) -> list[Sample]:
        path = self.data_dir / self.config.annotations.format(split=split)
        return [
            Sample(
                sample_id=number,
                image_ids=(row["image"],),
                images=(self.data_dir / row["image"],),
                text=row["question"],
                answers=(row["answer"],),
                answer=row["answer"],
                groups={"kind": row["kind"]},
            )
            for number, row in enumerate(read_json(path, f"{self.key}.annotations"))
        ]
