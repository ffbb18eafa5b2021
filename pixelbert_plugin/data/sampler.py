"""The order of a pass over the data: a pure function of (seed, epoch). M samples.

Pairs of one image stay together in chunks of `texts_per_image`, so that the CNN runs once per chunk.
"""

import numpy as np

from pixelbert_plugin.seeding import derive

WINDOW_BATCHES = 64  # batches among which images of like size are brought together


def weighted_epoch(
    images_M: np.ndarray, parts: dict[str, tuple[int, float]], seed: int, epoch: int, texts_per_image: int | None
) -> np.ndarray:
    """The samples of an epoch where data sets have weights, `parts`: samples and weight of each, in the mixture's order.

    A set of m samples at weight w gives round(w·m) an epoch, walking on from where the epoch before ended, through one
    random pass after another: at 0.2 every sample is seen once in five epochs. A sample that stands in one epoch for the
    k-th time (weights above 1) comes as index + k·M, so that its draws differ.
    """
    chosen, first = [], 0
    for name, (size, weight) in parts.items():
        count, images = epoch_size(size, weight), images_M[first : first + size]
        if weight == 1:
            chosen.append(np.arange(first, first + size))
        else:
            start, stop = epoch * count, (epoch + 1) * count
            passes = range(start // size, -(-stop // size))
            walk = [train_order(images, derive(seed, "pass", name), number, texts_per_image, size) for number in passes]
            ids = np.concatenate(walk)[start - passes[0] * size :][:count]
            by_id = np.argsort(ids, kind="stable")
            same = np.r_[False, ids[by_id][1:] == ids[by_id][:-1]]
            run_starts = np.flatnonzero(~same)
            occurrence = np.empty(count, dtype=np.int64)
            occurrence[by_id] = np.arange(count) - np.repeat(run_starts, np.diff(np.r_[run_starts, count]))
            chosen.append(first + ids + occurrence * len(images_M))
        first += size
    return np.concatenate(chosen)


def epoch_size(samples: int, weight: float) -> int:
    """How many samples of a set are one epoch at its weight."""
    return max(1, round(samples * weight))


def train_order(
    images_M: np.ndarray,
    seed: int,
    epoch: int,
    texts_per_image: int | None,
    batch_size: int,
    sizes_M2: np.ndarray | None = None,
) -> np.ndarray:
    """A permutation of range(M): chunks of pairs that share an image, in random order.

    `images_M` numbers each sample's image. With `sizes_M2` (height and width after resizing) the chunks within a window
    of 64 batches are sorted by shape, so that batches hold images of like size, and the batches are then shuffled.
    """
    draw = np.random.Generator(np.random.PCG64(derive(seed, "order", epoch)))
    samples = len(images_M)
    shuffled = draw.permutation(samples)
    by_image = shuffled[np.argsort(images_M[shuffled], kind="stable")]  # each image's texts in random order
    images = images_M[by_image]
    starts = np.flatnonzero(np.r_[True, images[1:] != images[:-1]])
    place_M = np.arange(samples) - np.repeat(starts, np.diff(np.r_[starts, samples]))  # 0, 1, … within the image
    chunk_starts = place_M % texts_per_image == 0 if texts_per_image else place_M == 0
    chunk_M = np.cumsum(chunk_starts) - 1
    rank_of_chunk = draw.permutation(chunk_M[-1] + 1)
    order = by_image[np.argsort(rank_of_chunk[chunk_M], kind="stable")]
    return order if sizes_M2 is None else _bucketed(order, sizes_M2, batch_size, draw)


def _bucketed(order: np.ndarray, sizes_M2: np.ndarray, batch_size: int, draw: np.random.Generator) -> np.ndarray:
    window = WINDOW_BATCHES * batch_size
    pieces = []
    for start in range(0, len(order), window):
        ids = order[start : start + window]
        height, width = sizes_M2[ids].T
        ids = ids[np.lexsort((np.arange(len(ids)), width, height))]  # stable: an image's pairs stay together
        batches = [ids[at : at + batch_size] for at in range(0, len(ids), batch_size)]
        last = [batches.pop()] if len(batches[-1]) < batch_size else []  # a short batch stays last
        pieces += [batches[index] for index in draw.permutation(len(batches))] + last
    return np.concatenate(pieces)


def by_text_length(images_M: np.ndarray, sizes_M2: np.ndarray, text_bytes_M: np.ndarray) -> np.ndarray:
    """A permutation of an update's M samples: neighbours of one image stay together, and images of one size come by their
    longest text, so that a micro-batch's texts are padded less.

    Which samples an update has stays as it was, so that a resume repeats and skips none.
    """
    starts = np.flatnonzero(np.r_[True, images_M[1:] != images_M[:-1]])
    longest_M = np.repeat(np.maximum.reduceat(text_bytes_M, starts), np.diff(np.r_[starts, len(images_M)]))
    return np.lexsort((np.arange(len(images_M)), longest_M, sizes_M2[:, 1], sizes_M2[:, 0]))


def evaluation_order(images_M: np.ndarray, sizes_M2: np.ndarray | None = None) -> np.ndarray:
    """A fixed permutation of range(M) in which pairs of one image stand together, and images of like size."""
    if sizes_M2 is None:
        return np.argsort(images_M, kind="stable")
    return np.lexsort((images_M, sizes_M2[:, 1], sizes_M2[:, 0]))
