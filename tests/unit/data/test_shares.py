"""Images dealt out to splits: exact shares, whatever the order of the rows, and no image in two."""

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pixelbert_plugin.data.shares import dealt

TENTHS = {"val": 0.1, "test": 0.1}


def one_each(count: int) -> list[tuple[str]]:
    return [(f"{number}.jpg",) for number in range(count)]


def test_shares_are_exact():
    assert Counter(dealt(one_each(50), TENTHS).values()) == {"train": 40, "val": 5, "test": 5}
    assert Counter(dealt(one_each(50), {"val": 0.2, "test": 0}).values()) == {"train": 40, "val": 10}
    assert Counter(dealt(one_each(50), {"val": 0.5, "test": 0.5}).values()) == {"val": 25, "test": 25}


def test_few_images_still_fill_every_split():
    for count in range(3, 12):
        assert set(dealt(one_each(count), TENTHS).values()) == {"train", "val", "test"}
    assert set(dealt(one_each(2), TENTHS).values()) == {"train"}


def test_the_split_is_the_place_of_the_names_hash():
    """A second implementation, for one image a row."""
    names = [f"{number}.jpg" for number in range(30)]
    ordered = sorted(names, key=lambda name: hashlib.blake2b(name.encode(), digest_size=16).digest())
    found = dealt(one_each(30), TENTHS)
    assert [found[name] for name in ordered] == ["val"] * 3 + ["test"] * 3 + ["train"] * 24


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=20), st.randoms())
def test_pairs_that_share_an_image_go_together_in_any_order(pairs, random):
    rows = [(f"{left}", f"{right}") for left, right in pairs]
    found = dealt(rows, {"val": 0.3, "test": 0.2})
    assert all(found[left] == found[right] for left, right in rows)
    shuffled = random.sample(rows, len(rows))
    assert dealt(shuffled, {"val": 0.3, "test": 0.2}) == found


def test_a_group_of_more_than_half_is_for_training():
    """Twelve images in a ring of pairs, and four pairs by themselves: of the five groups val and test get one each."""
    for first in range(12):  # whichever image leads the ring
        ring = [(f"{first}r{n}", f"{first}r{(n + 1) % 12}") for n in range(12)]
        found = dealt([*ring, *((f"{n}a", f"{n}b") for n in range(4))], {"val": 0.2, "test": 0.2})
        assert {found[image] for image, _ in ring} == {"train"}
        assert Counter(found.values()) == {"train": 16, "val": 2, "test": 2}


def test_a_new_image_moves_few_others():
    before, after = dealt(one_each(200), TENTHS), dealt(one_each(201), TENTHS)
    assert sum(before[name] != after[name] for name in before) <= 2
