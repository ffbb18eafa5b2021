"""Questions of VQA about a scene, each with one certain answer, and a choice among them that balances the answers."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import permutations
from random import Random

from pixelbert_plugin.miniature.language import RELATION_WORDS, names, plural
from pixelbert_plugin.miniature.scenes import (
    COLORS,
    HELD_OUT,
    OPPOSITE,
    PAIRS,
    RELATIONS,
    SHAPES,
    SIZES,
    Kind,
    Scene,
    relations,
)

# how often a family of questions is asked, while it has a question that keeps the answers balanced
WEIGHTS = {
    "exists": 14,
    "relation": 12,
    "is color": 8,
    "same color": 5,
    "more": 5,
    "bigger": 5,
    "count shape": 10,
    "count color": 8,
    "count all": 4,
    "color": 16,
    "shape": 10,
    "what is there": 10,
    "color there": 8,
    "which is larger": 4,
}
QUESTION_TYPES = (
    *("what color is the", "what is the", "what is", "what", "how many", "is there a", "is the", "are there"),
    *("are the", "is", "which", "do"),
)
MAX_EXCESS = 1.5  # how far an answer may be ahead of the others to the same question before it is left for other images


@dataclass(frozen=True)
class Question:
    family: str
    meaning: str  # equal for questions that differ in wording only
    wordings: tuple[str, ...]
    answer: str
    num_answers: int  # answers that the meaning may have

    @property
    def answer_type(self) -> str:
        return "yes/no" if self.answer in ("yes", "no") else "number" if self.answer.isdigit() else "other"


def question_type(text: str) -> str:
    """The longest of the official question types that the question begins with."""
    fits = [kind for kind in QUESTION_TYPES if text.lower().startswith(f"{kind} ")]
    return max(fits, key=len, default="none of the above")


class Chooser:
    """Chooses questions image by image, such that answers to one question stay balanced over the images seen so far."""

    def __init__(self, random: Random):
        self.random = random
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def choose(self, scene: Scene, number: int, *, held_out: bool) -> list[tuple[str, Question]]:
        """`number` questions (fewer where the scene has no more) with their wording. held_out: may name such pairs."""
        candidates: dict[str, list[Question]] = defaultdict(list)
        for question in questions(scene, held_out=held_out):
            candidates[question.family].append(question)
        chosen: dict[str, tuple[str, Question]] = {}
        while len(chosen) < number and candidates:
            family = self.random.choices(list(candidates), [WEIGHTS[name] for name in candidates])[0]
            left = [item for item in candidates[family] if item.meaning not in chosen]
            excess = [(self._excess(item), self.random.random()) for item in left]
            if not left or min(excess)[0] > MAX_EXCESS:
                del candidates[family]
                continue
            question = left[excess.index(min(excess))]
            text = min(question.wordings, key=lambda wording: self.counts[wording][question.answer])
            for key in (question.meaning, question.family, text):
                self.counts[key][question.answer] += 1
            chosen[question.meaning] = text, question
        return list(chosen.values())

    def _excess(self, question: Question) -> float:
        """How much more often this answer was given to the question than the average answer, and a little by family."""
        own, family = self.counts[question.meaning], self.counts[question.family]
        ahead = own[question.answer] - own.total() / question.num_answers
        return ahead + 0.05 * (family[question.answer] - family.total() / question.num_answers)


def questions(scene: Scene, *, held_out: bool) -> list[Question]:
    """Every question that has one answer in the scene. held_out: questions may name a held-out pair."""
    found = [*_existence(scene, held_out), *_counting(scene), *_attributes(scene, held_out), *_relations(scene)]
    return [*found, *_sizes(scene)]


def _question(family: str, meaning: str, answer: str | bool | int, num_answers: int, *wordings: str) -> Question:
    answer = {True: "yes", False: "no"}[answer] if isinstance(answer, bool) else str(answer)
    wordings = tuple(f"{text[0].upper()}{text[1:]}?" for text in wordings)
    return Question(family, f"{family}: {meaning}", wordings, answer, num_answers)


def _existence(scene: Scene, held_out: bool) -> list[Question]:
    found = []
    for color, shape in PAIRS if held_out else [pair for pair in PAIRS if pair not in HELD_OUT]:
        present = Kind(color, shape).count(scene) > 0
        near = any(color == item.color or shape == item.shape for item in scene.figures)
        if present or near:
            name = f"{color} {shape}"
            wordings = (f"is there a {name}", f"is there a {name} in the picture", f"do you see a {name}")
            found.append(_question("exists", name, present, 2, *wordings))
    for one, other in permutations(SHAPES, 2):
        first, second = Kind(shape=one).count(scene), Kind(shape=other).count(scene)
        if first != second:
            text = f"are there more {plural(one)} than {plural(other)}"
            found.append(_question("more", f"{one} {other}", first > second, 2, text, f"{text} in the picture"))
    return found


def _counting(scene: Scene) -> list[Question]:
    found = []
    kinds = [("count shape", plural(shape), Kind(shape=shape)) for shape in SHAPES]
    kinds += [("count color", f"{color} objects", Kind(color=color)) for color in COLORS]
    kinds += [("count all", "objects", Kind())]
    for family, noun, kind in kinds:
        wordings = (f"how many {noun} are there", f"how many {noun} are in the picture", f"how many {noun} do you see")
        found.append(_question(family, noun, kind.count(scene), 3, *wordings))
    return found


def _attributes(scene: Scene, held_out: bool) -> list[Question]:
    found = []
    for item in scene.figures:
        if Kind(shape=item.shape).count(scene) == 1:
            name = f"the {item.shape}"
            wordings: tuple[str, ...] = (f"what color is {name}", f"what is the color of {name}")
            found.append(_question("color", name, item.color, len(COLORS), *wordings))
            for color in COLORS:
                if held_out or (color, item.shape) not in HELD_OUT:
                    found.append(_question("is color", f"{name} {color}", color == item.color, 2, f"is {name} {color}"))
        if Kind(color=item.color).count(scene) == 1:
            name = f"the {item.color} object"
            wordings = (f"what shape is {name}", f"what is the shape of {name}", f"what is {name}")
            found.append(_question("shape", name, item.shape, len(SHAPES), *wordings))
    for one, other in permutations(scene.figures, 2):
        if Kind(shape=one.shape).count(scene) == Kind(shape=other.shape).count(scene) == 1:
            text = f"the {one.shape} and the {other.shape}"
            wordings = (f"are {text} the same color", f"do {text} have the same color")
            pair = " ".join(sorted((one.shape, other.shape)))
            found.append(_question("same color", pair, one.color == other.color, 2, *wordings))
    return found


def _relations(scene: Scene) -> list[Question]:
    found = []
    for one, other in permutations(scene.figures, 2):
        for name in relations(one, other):
            for first in names(one, scene)[:1]:
                for second in names(other, scene)[:1]:
                    for asked, answer in ((name, True), (OPPOSITE[name], False)):
                        wordings = [f"is the {first} {word} the {second}" for word in RELATION_WORDS[asked]]
                        found.append(_question("relation", f"{first} {asked} {second}", answer, 2, *wordings))
    for one in scene.figures:
        for name, holds in RELATIONS.items():
            there = [item for item in scene.figures if item is not one and holds(item, one)]
            if len(there) == 1:
                for reference in names(one, scene)[:2]:
                    words = [f"{word} the {reference}" for word in RELATION_WORDS[name]]
                    wordings = [
                        f"{start} {word}" for word in words for start in ("what is", "what shape is", "which object is")
                    ]
                    found.append(_question("what is there", words[0], there[0].shape, len(SHAPES), *wordings))
                    wordings = [f"what color is the object {word}" for word in words]
                    found.append(_question("color there", words[0], there[0].color, len(COLORS), *wordings))
    return found


def _sizes(scene: Scene) -> list[Question]:
    found = []
    for one, other in permutations(scene.figures, 2):
        if one.size == other.size:
            continue
        bigger = one if one.size == SIZES[1] else other
        for first in names(one, scene)[:1]:
            for second in names(other, scene)[:1]:
                if {"small", "large"} & {*first.split(), *second.split()}:
                    continue
                wordings = [f"is the {first} {word} than the {second}" for word in ("bigger", "larger")]
                found.append(_question("bigger", f"{first} {second}", bigger is one, 2, *wordings))
                if one.shape != other.shape:
                    wordings = [f"which is {word}, the {first} or the {second}" for word in ("larger", "bigger")]
                    found.append(_question("which is larger", f"{first} {second}", bigger.shape, 2, *wordings))
    return found
