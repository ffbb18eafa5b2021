"""Words for scenes: names of figures, captions of whole scenes and phrases for regions. Under 80 words in all."""

from itertools import permutations
from random import Random

from pixelbert_plugin.miniature.scenes import Figure, Scene, relations

NUMBERS = ("no", "one", "two", "three", "four")
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
SIDES = {"left of": "on its left", "right of": "on its right", "above": "above it", "below": "below it"}


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith(("s", "x")) else f"{shape}s"


def noun_phrase(figure: Figure, random: Random, size_share: float = 0.4) -> str:
    """Such as "red circle" or, at times, "big red circle"."""
    size = f"{random.choice(SIZE_WORDS[figure.size])} " if random.random() < size_share else ""
    return f"{size}{figure.color} {figure.shape}"


def names(figure: Figure, scene: Scene) -> list[str]:
    """Every name that refers to this figure of the scene alone, shortest first: "star", "red star", "large star", …"""
    found = []
    for size, color, shape in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 1, 0), (1, 1, 1), (1, 1, 0), (1, 0, 0)):
        wanted = (size and figure.size, color and figure.color, shape and figure.shape)
        if sum(_fits(item, *wanted) for item in scene.figures) == 1:
            found.append(" ".join(word for word in (*wanted[:2], wanted[2] or "object") if word))
    return found


def _fits(figure: Figure, *wanted: str | int) -> bool:
    """Whether the figure has the wanted size, colour and shape; 0 wants none in particular."""
    return all(want in (0, has) for want, has in zip(wanted, (figure.size, figure.color, figure.shape), strict=True))


def captions(scene: Scene, random: Random, number: int = 5) -> list[str]:
    """Different captions of the scene, each about all of its figures or about two of them."""
    found: list[str] = []
    while len(found) < number:
        text = _caption(scene, random)
        if text not in (item.rstrip(".").lower() for item in found):
            found.append(_as_sentence(text, random))
    return found


def _caption(scene: Scene, random: Random) -> str:
    if len(scene.figures) == 1:
        return _single(scene.figures[0], random)
    pairs = [(one, other) for one, other in permutations(scene.figures, 2) if relations(one, other)]
    distinct = [(one, other) for one, other in pairs if one.pair != other.pair]
    if random.random() < 0.35 or not pairs:
        return _listing(scene, random)
    one, other = random.choice(distinct or pairs)
    name = random.choice(relations(one, other))
    first, second = noun_phrase(one, random), noun_phrase(other, random)
    article = "a" if one.pair != other.pair else "another"
    relation = random.choice(RELATION_WORDS[name])
    return random.choice(
        [
            f"a {first} {relation} {article} {second}",
            f"there is a {first} {relation} {article} {second}",
            f"a {first} is {relation} {article} {second}",
            f"this {_picture(random)} shows a {first} {relation} {article} {second}",
            f"a {second} with {article} {first} {SIDES[name]}",
            f"{relation} a {second} there is {article} {first}",
        ]
    )


def _single(figure: Figure, random: Random) -> str:
    phrase = noun_phrase(figure, random, 0.6)
    return random.choice(
        [
            f"a {phrase}",
            f"there is only a {phrase}",
            f"a single {phrase}",
            f"one object, a {phrase}",
            f"a {_picture(random)} of a {phrase}",
            f"this {_picture(random)} shows a {phrase} and no other object",
            f"there is one object and it is a {phrase}",
        ]
    )


def _listing(scene: Scene, random: Random) -> str:
    """All figures, in any order, equal ones counted together."""
    pairs = [item.pair for item in scene.figures]
    phrases, done = [], set()
    for figure in random.sample(scene.figures, len(scene.figures)):
        count = pairs.count(figure.pair)
        if count == 1:
            phrases.append(f"a {noun_phrase(figure, random)}")
        elif figure.pair not in done:
            phrases.append(f"{NUMBERS[count]} {figure.color} {plural(figure.shape)}")
        done.add(figure.pair)
    items = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return random.choice(
        [
            items,
            f"a {_picture(random)} of {items}",
            f"this {_picture(random)} shows {items}",
            f"{NUMBERS[len(pairs)]} objects, {items}",
            f"there are {NUMBERS[len(pairs)]} objects, {items}",
        ]
    )


def _picture(random: Random) -> str:
    return random.choice(("picture", "photo", "image"))


def _as_sentence(text: str, random: Random) -> str:
    text = text[0].upper() + text[1:] if random.random() < 0.7 else text
    return f"{text}." if random.random() < 0.6 else text


def region_phrases(scene: Scene, random: Random, number: int) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Up to `number` different phrases, each with the box (x, y, width, height in pixels) of what it is about."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for _ in range(4 * number):
        if len(found) < number:
            one = random.choice(scene.figures)
            others = [item for item in scene.figures if relations(one, item)]
            if others and random.random() < 0.45:
                other = random.choice(others)
                phrase = _relation_phrase(one, other, scene, random)
                found.setdefault(phrase, union(one.box, other.box))
            else:
                found.setdefault(_region_phrase(one, scene, random), one.box)
    return list(found.items())


def _relation_phrase(one: Figure, other: Figure, scene: Scene, random: Random) -> str:
    relation = random.choice(RELATION_WORDS[random.choice(relations(one, other))])
    definite = [f"the {name}" for name in names(other, scene)[:2]] or [f"a {other.color} {other.shape}"]
    article = random.choice(("a ", ""))
    return f"{article}{noun_phrase(one, random, 0.2)} {relation} {random.choice(definite)}"


def _region_phrase(figure: Figure, scene: Scene, random: Random) -> str:
    phrase, size = noun_phrase(figure, random, 0.5), random.choice(SIZE_WORDS[figure.size])
    definite = [f"the {name}" for name in names(figure, scene)]
    return random.choice(
        [
            f"a {phrase}",
            phrase,
            f"a {figure.shape} that is {figure.color}",
            f"a {figure.color} {figure.shape} that is {size}",
            random.choice(definite or [f"a {phrase}"]),
        ]
    )


def union(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The smallest box (x, y, width, height) around two."""
    left, top = min(one[0], other[0]), min(one[1], other[1])
    right = max(one[0] + one[2], other[0] + other[2])
    bottom = max(one[1] + one[3], other[1] + other[3])
    return left, top, right - left, bottom - top
