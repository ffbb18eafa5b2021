"""A table's images dealt out to train, val and test by share: a function of the images' names, whatever the order of the rows.

Images are put in the order of a hash of their names; val is the first of them, test the next, train the rest. So the shares are
exact, and an image that comes or goes moves at most a few others, at the edges. Images that stand in one row, as NLVR2's two
do, go together, and so do those that are connected through others; where that are more than half of all, they are train's.
"""

import hashlib
from collections.abc import Iterable, Mapping

from pixelbert_plugin.data.connected import connected

SPLITS = ("val", "test", "train")  # as they are dealt out


def order(name: str) -> bytes:
    """What images are ordered by: 16 bytes."""
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest()


def dealt(rows: Iterable[tuple[str, ...]], shares: Mapping[str, float]) -> dict[str, str]:
    """The split of every image. `rows`: the images of each row; `shares`: of val and test, 0…1, train having the rest.

    A split whose share is above 0 has an image at least, where there are enough.
    """
    together: dict[str, list[str]] = {}
    one_of = connected(rows)
    for image, one in one_of.items():
        together.setdefault(one, []).append(image)
    groups = {min(images): images for images in together.values()}  # so that the order of the rows does not matter
    leaders = sorted(groups, key=lambda leader: (2 * len(groups[leader]) > len(one_of), order(leader)))  # train is last
    wanted = {name: shares.get(name, 0.0) for name in ("val", "test")}
    wanted["train"] = max(0.0, 1.0 - sum(wanted.values()))
    counts = _counts(len(leaders), wanted)
    found, first = {}, 0
    for name in SPLITS:
        for leader in leaders[first : first + counts[name]]:
            found.update(dict.fromkeys(groups[leader], name))
        first += counts[name]
    return found


def _counts(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of `total` each split gets."""
    asked = [name for name in SPLITS if shares[name] > 1e-9]
    least = 1 if total >= len(asked) else 0
    counts = dict.fromkeys(SPLITS, 0)
    for name in ("val", "test"):
        if name in asked:
            counts[name] = max(least, round(total * shares[name]))
    spare = total - counts["val"] - counts["test"] - (least if "train" in asked else 0)
    while spare < 0:  # many small shares of few images: the larger one gives
        larger = max(("val", "test"), key=lambda name: counts[name])
        counts[larger] -= 1
        spare += 1
    counts["train"] = total - counts["val"] - counts["test"] if "train" in asked else 0
    if "train" not in asked:  # rounding leaves some over
        counts[asked[-1]] += total - sum(counts.values())
    return counts
