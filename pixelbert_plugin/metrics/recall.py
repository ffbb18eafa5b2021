"""Retrieval by a matrix of scores: ranks, R@k, median and mean rank in both directions. I images, T texts.

Ties count against us: a rank is 1 + the number of others with a score not lower, so that equal scores earn nothing.
"""

import numpy as np

RECALL_AT = (1, 5, 10)


def ranks(scores_IT: np.ndarray, image_of_text_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image → text: ranks_I, of each image's best caption among the captions of others. Text → image: ranks_T.

    `image_of_text_T`: each text's row in `scores_IT`. Raises ValueError where an image has no text or a score is NaN.
    """
    images, texts = scores_IT.shape
    if len(np.unique(image_of_text_T)) < images:
        raise ValueError("an image has no text: image → text retrieval is not defined for it")
    if np.isnan(scores_IT).any():
        raise ValueError("a score is NaN")
    ranks_I = np.empty(images, dtype=np.int64)
    for image in range(images):  # row by row: a matrix of booleans of COCO's size would take 125 MB
        is_own_T = image_of_text_T == image
        best = scores_IT[image, is_own_T].max()
        ranks_I[image] = 1 + (scores_IT[image, ~is_own_T] >= best).sum()
    ranks_T = np.empty(texts, dtype=np.int64)
    for text, image in enumerate(image_of_text_T):
        ranks_T[text] = (scores_IT[:, text] >= scores_IT[image, text]).sum()  # itself counts as the 1
    return ranks_I, ranks_T


def retrieval_metrics(scores_IT: np.ndarray, image_of_text_T: np.ndarray) -> dict[str, float]:
    """`image_to_text_r@1` …, `text_to_image_median_rank` …, and `mean_r@1` of both directions; recalls in 0…1."""
    metrics: dict[str, float] = {}
    directions = ("image_to_text", "text_to_image")
    for direction, found in zip(directions, ranks(scores_IT, image_of_text_T), strict=True):
        metrics |= {f"{direction}_r@{k}": float((found <= k).mean()) for k in RECALL_AT}
        metrics |= {f"{direction}_median_rank": float(np.median(found)), f"{direction}_mean_rank": float(found.mean())}
    return {"mean_r@1": sum(metrics[f"{direction}_r@1"] for direction in directions) / 2, **metrics}


def fold_metrics(scores_IT: np.ndarray, image_of_text_T: np.ndarray, fold_images: int) -> dict[str, float]:
    """The mean of `retrieval_metrics` over consecutive folds of `fold_images` images (COCO: five folds of 1,000).

    Raises ValueError where the images do not divide into whole folds.
    """
    images = len(scores_IT)
    if images % fold_images:
        raise ValueError(f"{images} images do not divide into folds of {fold_images}")
    folds = []
    for start in range(0, images, fold_images):
        texts = np.flatnonzero((image_of_text_T >= start) & (image_of_text_T < start + fold_images))
        folds.append(retrieval_metrics(scores_IT[start : start + fold_images, texts], image_of_text_T[texts] - start))
    return {name: sum(fold[name] for fold in folds) / len(folds) for name in folds[0]}
