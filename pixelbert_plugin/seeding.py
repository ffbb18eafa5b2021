"""Every random draw of a run is a function of the seed and of what it is drawn for; no generator is carried along.

Order = f(seed, epoch); masking and negatives = f(seed, epoch, sample id); augmentation and pixel sampling = f(seed, epoch,
image id, first sample of the image's group in the update): an image that is in seven updates of an epoch is sampled seven
times, as in the paper, and alike in all micro-batches and processes of one update. Dropout = f(seed, update, …). A resumed
run therefore repeats nothing and skips nothing, on any number of data-loader workers.
"""

import hashlib


def derive(seed: int, *parts: int | str) -> int:
    """A 63-bit seed that depends on `seed` and every part, equal on every machine (unlike Python's hash)."""
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
