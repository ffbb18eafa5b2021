"""Statements of NLVR2 about pairs of images: four pairs to a statement, two of them true.

Nine sets in ten, of train's three, are of types whose truth is an exclusive-or of the two images: the left is one of A
and D, the right one of B and C, and a statement holds for (A, B) and (D, C) alone or for (A, C) and (D, B) alone, so that
neither image tells anything by itself. Such a statement teaches nothing to a model that cannot yet tell whether an image
shows its subject; the plain ones, where one image tells something, teach that first, and train has more of them.
A set's scenes are made for its first statement; the others are what else fits them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pixelbert_plugin.miniature.language import NUMBERS, plural
from pixelbert_plugin.miniature.scenes import COLORS, HELD_OUT, SEEN, SHAPES, Kind, Scene, draw_scene, fitting

EXCLUSIVE = ("exactly one", "both or neither", "same number", "total", "same color")
PLAIN = ("both", "at least one", "neither")
EXCLUSIVE_TENTHS = {"train": 3, "val": 9, "test": 9}  # of a split's sets
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
TRUTH: dict[str, Callable[[Value, Value, int], bool]] = {  # of the left image's value, the right one's and the target
    "exactly one": lambda left, right, target: bool(left) != bool(right),
    "both or neither": lambda left, right, target: bool(left) == bool(right),
    "same number": lambda left, right, target: left == right,
    "total": lambda left, right, target: int(left) + int(right) == target,
    "same color": lambda left, right, target: left == right,
    "both": lambda left, right, target: bool(left and right),
    "at least one": lambda left, right, target: bool(left or right),
    "neither": lambda left, right, target: not left and not right,
}
COUNTING = ("same number", "total")
Pairs = tuple[tuple[Scene, Scene], ...]  # left and right


@dataclass(frozen=True, kw_only=True)
class Statement:
    type: str
    sentence: str
    target: int  # the number of "total", else 0
    values: tuple[tuple[Value, Value], ...]  # of left and right, pair by pair
    labels: tuple[bool, ...]  # two of the four are true


@dataclass(frozen=True, kw_only=True)
class StatementSet:
    subject: str  # of its first statement, such as "red star"
    pairs: Pairs  # four
    statements: tuple[Statement, ...]


def make_set(random: Random, split: str, index: int, statements: int = 1, *, held_out: bool = False) -> StatementSet:
    """The set number `index`, of up to so many statements; their types are its split's share of EXCLUSIVE.

    split: the scenes'. held_out: its first statement is about such a pair.
    """
    kinds = EXCLUSIVE if index % 10 < EXCLUSIVE_TENTHS[split] else PLAIN
    type = kinds[(index // 10 + index) % len(kinds)]
    if held_out and type == "same color":
        type = "exactly one"
    rows = random.choice((2, 3))  # of all scenes: a set's images have one shape
    if type == "same color":
        kind, target, pairs = _same_color(random, split, rows)
    else:
        kind, target, pairs = _counted(random, split, rows, type, held_out)
    found = [_statement(random, type, kind, target, pairs)]
    others = [other for other in _others(pairs, kinds) if other != (type, kind, target)]
    random.shuffle(others)
    while others and len(found) < statements:  # types in turn, so that no type fills the set
        counts = Counter(item.type for item in found)
        others.sort(key=lambda other: counts[other[0]])
        found.append(_statement(random, *others.pop(0), pairs))
    return StatementSet(subject=_name(kind), pairs=pairs, statements=tuple(found))


def _counted(random: Random, split: str, rows: int, type: str, held_out: bool) -> tuple[Kind, int, Pairs]:
    """Subject, target and pairs of any type but "same color": its truth depends on how many figures each image holds."""
    kind = _subject(random, type, held_out)
    target, counts = _counts(random, type, kind)

    def draw(number: int) -> Scene:
        if kind == Kind():
            return draw_scene(random, split, count=number, accept=lambda scene: scene.rows == rows)
        return draw_scene(random, split, (kind,) * number, avoid=kind, accept=lambda scene: scene.rows == rows)

    if type in EXCLUSIVE:
        (a, d), (b, c) = ((draw(first), draw(second)) for first, second in counts)
        pairs = [(a, b), (d, c), (a, c), (d, b)]
    else:
        pairs = [(draw(left), draw(right)) for left, right in PLAIN_ROWS[type]]
    random.shuffle(pairs)
    return kind, target, tuple(pairs)


# how many figures of the subject the left and the right image show; which side decides a false (or true) pair varies
PLAIN_ROWS = {
    "both": ((1, 1), (1, 1), (1, 0), (0, 1)),
    "at least one": ((1, 0), (0, 1), (0, 0), (0, 0)),
    "neither": ((0, 0), (0, 0), (1, 0), (0, 1)),
}


def _counts(random: Random, type: str, kind: Kind) -> tuple[int, tuple[tuple[int, int], tuple[int, int]]]:
    """The total asked for (else 0), and the numbers of A, D on the left and of B, C on the right."""
    low, high = (1, 4) if kind == Kind() else (0, 1) if kind.color and kind.shape else (0, 3)
    if type in COUNTING:
        first, second = random.sample(range(low, (3 if type == "total" else high) + 1), 2)
        if type == "same number":
            return 0, ((first, second), (first, second))
        target = random.randint(max(first, second, 1) + low, 4)
        return target, ((first, second), (target - first, target - second))
    first, second = random.choice(((0, 1), (1, 0)))
    return 0, ((first, second), (second, first) if type == "exactly one" else (first, second))


def _subject(random: Random, type: str, held_out: bool) -> Kind:
    if held_out:
        return Kind(*random.choice(HELD_OUT))
    if type in COUNTING:
        return random.choice([Kind(), *SINGLE])
    return Kind(*random.choice(SEEN)) if random.random() < 0.5 else random.choice(SINGLE)


SINGLE = (*(Kind(shape=shape) for shape in SHAPES), *(Kind(color=color) for color in COLORS))


def _same_color(random: Random, split: str, rows: int) -> tuple[Kind, int, Pairs]:
    """Each image holds one figure of the shape: A and B of one colour, D and C of another."""
    shape = random.choice(SHAPES)
    colors = random.sample([color for color, _ in fitting(Kind(shape=shape))], 2)
    left, right = (
        [
            draw_scene(random, split, (Kind(color, shape),), avoid=Kind(shape=shape), accept=lambda scene: scene.rows == rows)
            for color in colors
        ]
        for _ in range(2)
    )
    pairs = [(one, other) for one in left for other in right]
    random.shuffle(pairs)
    return Kind(shape=shape), 0, tuple(pairs)


def _others(pairs: Pairs, types: tuple[str, ...]) -> list[tuple[str, Kind, int]]:
    """Type, subject and target of every statement of these types that two of the pairs fulfil.

    Of EXCLUSIVE types only those where each image is in one true pair and in one false.
    """
    found = []
    for type in types:
        if type == "same color":
            subjects = [Kind(shape=shape) for shape in SHAPES]
        else:
            subjects = [Kind(), *SINGLE] if type in COUNTING else [*SINGLE, *(Kind(*pair) for pair in SEEN)]
        for kind in subjects:
            for target in (1, 2, 3, 4) if type == "total" else (0,):
                values = _values(type, kind, pairs)
                if values is None:
                    continue
                labels = [TRUTH[type](left, right, target) for left, right in values]
                by_image = [
                    sum(label for label, pair in zip(labels, pairs, strict=True) if pair[side] is scene)
                    for side in (0, 1)
                    for scene in (pair[side] for pair in pairs)
                ]
                if sum(labels) == 2 and (type in PLAIN or set(by_image) == {1}):
                    found.append((type, kind, target))
    return found


def _values(type: str, kind: Kind, pairs: Pairs) -> tuple[tuple[Value, Value], ...] | None:
    """What a statement of the type asks of each image; None where it cannot be asked."""
    if type != "same color":
        return tuple((kind.count(left), kind.count(right)) for left, right in pairs)
    if any(kind.count(scene) != 1 for pair in pairs for scene in pair):
        return None
    left_right = ([next(item.color for item in scene.figures if kind.matches(*item.pair)) for scene in pair] for pair in pairs)
    return tuple((left, right) for left, right in left_right)


def _statement(random: Random, type: str, kind: Kind, target: int, pairs: Pairs) -> Statement:
    name = _name(kind)
    words = {
        "a": f"a {name}",
        "shape": kind.shape,
        "thing": name,
        "things": name if target == 1 else _plural_name(kind),
        "are": "is" if target == 1 else "are",
        "number": NUMBERS[target],
    }
    text = random.choice(WORDINGS[type]).format(**words)
    values = _values(type, kind, pairs) or ()  # asked for only where every image has one
    labels = tuple(TRUTH[type](left, right, target) for left, right in values)
    return Statement(type=type, sentence=f"{text[0].upper()}{text[1:]}.", target=target, values=values, labels=labels)


def _name(kind: Kind) -> str:
    return " ".join(word for word in (kind.color, kind.shape or "object") if word)


def _plural_name(kind: Kind) -> str:
    return " ".join(word for word in (kind.color, plural(kind.shape or "object")) if word)
