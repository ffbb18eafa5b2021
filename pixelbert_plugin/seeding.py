"""Every random draw of a run is a function of the seed and of what it is drawn for; no generator is carried along.

Order = f(seed, epoch); augmentation and pixel sampling = f(seed, epoch, image id); dropout = f(seed, update, …).
A resumed run therefore repeats nothing and skips nothing, on any number of data-loader workers.
"""

import hashlib


def derive(seed: int, *parts: int | str) -> int:
    """A 63-bit seed that depends on `seed` and every part, equal on every machine (unlike Python's hash)."""
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
