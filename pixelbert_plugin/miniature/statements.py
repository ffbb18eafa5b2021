"""Statements of NLVR2 about pairs of images: four pairs to a statement, two of them true.

Seven sets in ten are of a type whose truth is an exclusive-or of the two images: the left is one of A and D, the right
one of B and C, and the statement holds for (A, B) and (D, C) alone, so that neither image tells anything by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pixelbert_plugin.miniature.language import NUMBERS, plural
from pixelbert_plugin.miniature.scenes import COLORS, HELD_OUT, SEEN, SHAPES, Kind, Scene, draw_scene, fitting

EXCLUSIVE = ("exactly one", "both or neither", "same number", "total", "same color")
PLAIN = ("both", "at least one", "neither")
WORDINGS = {
    "exactly one": (
        "exactly one of the two images contains {a}",
        "one image shows {a} and the other does not",
        "only one of the images has {a}",
        "{a} appears in exactly one image",
        "there is {a} in one image but not in the other",
    ),
    "both or neither": (
        "either both images contain {a} or neither does",
        "{a} appears in both images or in neither",
        "either there is {a} in both images or in neither",
        "either both images show {a} or neither image does",
        "either both of the images have {a} or neither has one",
    ),
    "same number": (
        "both images show the same number of {things}",
        "the two images contain the same number of {things}",
        "the number of {things} is the same in both images",
        "there are as many {things} in the left image as in the right image",
        "the left image has as many {things} as the right image",
    ),
    "total": (
        "there {are} exactly {number} {things} in total",
        "in total there {are} exactly {number} {things}",
        "the two images contain exactly {number} {things} in total",
        "the images show exactly {number} {things} altogether",
        "altogether there {are} exactly {number} {things} in the two images",
    ),
    "same color": (
        "the {shape} has the same color in both images",
        "both images show {a} of the same color",
        "the two {things} are the same color",
        "the {shape} on the left has the same color as the {shape} on the right",
        "the two images contain {a} of the same color",
    ),
    "both": (
        "both images contain {a}",
        "there is {a} in both images",
        "each image shows {a}",
        "{a} appears in both images",
        "the left image and the right image both have {a}",
    ),
    "at least one": (
        "at least one image contains {a}",
        "there is {a} in at least one of the images",
        "one or both of the images show {a}",
        "{a} appears in at least one image",
        "at least one of the two images has {a}",
    ),
    "neither": (
        "neither image contains {a}",
        "there is no {thing} in either image",
        "no image shows {a}",
        "neither of the two images has {a}",
        "no {thing} appears in the images",
    ),
}
Value = int | str  # what a statement asks of one image: a count, or a colour


@dataclass(frozen=True, kw_only=True)
class Pair:
    left: Scene
    right: Scene
    values: tuple[Value, Value]  # of left and right
    label: bool


@dataclass(frozen=True, kw_only=True)
class StatementSet:
    type: str
    sentences: tuple[str, ...]  # one, or two: then the second says the contrary
    subject: str  # what it is about, such as "red star"
    target: int  # the number of "total", else 0
    pairs: tuple[Pair, ...]  # four; `label` is the first sentence's


def make_set(random: Random, split: str, index: int, *, held_out: bool = False) -> StatementSet:
    """The set number `index`: in ten sets, seven are of EXCLUSIVE types. split: the scenes'. held_out: about such a pair."""
    kinds = EXCLUSIVE if index % 10 < 7 else PLAIN
    kind = kinds[(index // 10 + index) % len(kinds)]
    if held_out and kind == "same color":
        kind = "exactly one"
    return _same_color(random, split) if kind == "same color" else _counted(random, split, kind, held_out)


def _counted(random: Random, split: str, type: str, held_out: bool) -> StatementSet:
    """A set of any type but "same color": its truth depends on how many figures of a kind each image holds."""
    kind = _subject(random, type, held_out)
    target, counts = _counts(random, type, kind)
    draw = _counting_scenes(random, split, kind)
    if type in EXCLUSIVE:
        (left_a, left_d), (right_b, right_c) = counts
        scenes = {(side, number): draw(number) for side, numbers in enumerate(counts) for number in numbers}
        rows = [(left_a, right_b, True), (left_d, right_c, True), (left_a, right_c, False), (left_d, right_b, False)]
        pairs = [(scenes[0, left], scenes[1, right], left, right, label) for left, right, label in rows]
    else:
        rows = [(int(left), int(right), label) for left, right, label in PLAIN_ROWS[type]]
        pairs = [(draw(left), draw(right), left, right, label) for left, right, label in rows]
    random.shuffle(pairs)
    name = _name(kind)
    words = {
        "a": f"a {name}",
        "thing": name,
        "things": name if target == 1 else _plural_name(kind),
        "are": "is" if target == 1 else "are",
        "number": NUMBERS[target],
    }
    types = [type]
    if type in EXCLUSIVE[:2] and random.random() < 0.3:  # the contrary, about the same pairs, as many sets have two sentences
        types.append(EXCLUSIVE[1 - EXCLUSIVE.index(type)])
    sentences = tuple(_sentence(random, item, words) for item in types)
    made = tuple(Pair(left=left, right=right, values=(a, b), label=label) for left, right, a, b, label in pairs)
    return StatementSet(type=type, sentences=sentences, subject=name, target=target, pairs=made)


# whether the left and the right image show the subject; which side decides a false (or true) pair varies
PLAIN_ROWS = {
    "both": ((True, True, True), (True, True, True), (True, False, False), (False, True, False)),
    "at least one": ((True, False, True), (False, True, True), (False, False, False), (False, False, False)),
    "neither": ((False, False, True), (False, False, True), (True, False, False), (False, True, False)),
}


def _counts(random: Random, type: str, kind: Kind) -> tuple[int, tuple[tuple[int, int], tuple[int, int]]]:
    """The total asked for (else 0), and the numbers of A, D on the left and of B, C on the right."""
    low, high = (1, 4) if kind == Kind() else (0, 1) if kind.color and kind.shape else (0, 3)
    if type in ("same number", "total"):
        first, second = random.sample(range(low, (3 if type == "total" else high) + 1), 2)
        if type == "same number":
            return 0, ((first, second), (first, second))
        target = random.randint(max(first, second, 1) + low, 4)
        return target, ((first, second), (target - first, target - second))
    first, second = random.choice(((0, 1), (1, 0)))
    return 0, ((first, second), (second, first) if type == "exactly one" else (first, second))


def _counting_scenes(random: Random, split: str, kind: Kind) -> Callable[[int], Scene]:
    """A function: number → a scene with so many figures of `kind`."""

    def draw(number: int) -> Scene:
        if kind == Kind():
            return draw_scene(random, split, count=number)
        return draw_scene(random, split, (kind,) * number, avoid=kind)

    return draw


def _subject(random: Random, type: str, held_out: bool) -> Kind:
    if held_out:
        return Kind(*random.choice(HELD_OUT))
    if type in ("same number", "total"):
        choices = [Kind(), *(Kind(shape=shape) for shape in SHAPES), *(Kind(color=color) for color in COLORS)]
        return random.choice(choices)
    if random.random() < 0.5:
        return Kind(*random.choice(SEEN))
    return random.choice([*(Kind(shape=shape) for shape in SHAPES), *(Kind(color=color) for color in COLORS)])


def _same_color(random: Random, split: str) -> StatementSet:
    """Each image holds one figure of the shape: A and B of one colour, D and C of another."""
    shape = random.choice(SHAPES)
    colors = random.sample([color for color, _ in fitting(Kind(shape=shape))], 2)
    scenes = {
        (side, color): draw_scene(random, split, (Kind(color, shape),), avoid=Kind(shape=shape))
        for side in (0, 1)
        for color in colors
    }
    pairs = [
        Pair(left=scenes[0, left], right=scenes[1, right], values=(left, right), label=left == right)
        for left in colors
        for right in colors
    ]
    random.shuffle(pairs)
    words = {"a": f"a {shape}", "shape": shape, "things": plural(shape)}
    sentence = _sentence(random, "same color", words)
    return StatementSet(type="same color", sentences=(sentence,), subject=shape, target=0, pairs=tuple(pairs))


def _name(kind: Kind) -> str:
    return " ".join(word for word in (kind.color, kind.shape or "object") if word)


def _plural_name(kind: Kind) -> str:
    return " ".join(word for word in (kind.color, plural(kind.shape or "object")) if word)


def _sentence(random: Random, type: str, words: dict[str, str]) -> str:
    text = random.choice(WORDINGS[type]).format(**words)
    return f"{text[0].upper()}{text[1:]}."
