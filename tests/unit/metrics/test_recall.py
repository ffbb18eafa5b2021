"""Retrieval ranks and recalls against a sort, and by hand where scores are equal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin.metrics.recall import fold_metrics, ranks, retrieval_metrics


def test_by_hand():
    scores = np.array([[0.9, 0.1, 0.5, 0.2], [0.3, 0.2, 0.4, 0.8]], dtype=np.float32)
    image_of_text = np.array([0, 0, 1, 1])
    found_i, found_t = ranks(scores, image_of_text)
    assert found_i.tolist() == [1, 1]  # 0.9 leads its row; 0.8 leads its own
    assert found_t.tolist() == [1, 2, 2, 1]
    figures = retrieval_metrics(scores, image_of_text)
    assert figures["image_to_text_r@1"] == 1 and figures["text_to_image_r@1"] == 0.5 and figures["mean_r@1"] == 0.75
    assert figures["text_to_image_median_rank"] == 1.5 and figures["text_to_image_mean_rank"] == 1.5


def test_ties_count_against_us():
    found_i, found_t = ranks(np.zeros((4, 8), dtype=np.float32), np.repeat(np.arange(4), 2))
    assert found_i.tolist() == [7] * 4  # six captions of others score as high
    assert found_t.tolist() == [4] * 8
    assert retrieval_metrics(np.zeros((20, 20), dtype=np.float32), np.arange(20))["image_to_text_r@10"] == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 10**6), st.booleans())
def test_equals_a_sort(images, captions, seed, coarse):
    draw = np.random.default_rng(seed)
    image_of_text = draw.permutation(np.repeat(np.arange(images), captions))
    scores = draw.normal(size=(images, images * captions)).astype(np.float32)
    scores = scores.round(0 if coarse else 6)  # coarse: many ties
    found_i, found_t = ranks(scores, image_of_text)
    for image in range(images):
        # worst first among equals: a stable sort with the own captions put behind
        order = sorted(range(images * captions), key=lambda t, i=image: (-scores[i, t], image_of_text[t] == i))
        others_before = 0
        for text in order:
            if image_of_text[text] == image:
                break
            others_before += 1
        assert found_i[image] == others_before + 1
    for text, own in enumerate(image_of_text):
        order = sorted(range(images), key=lambda i, t=text, o=own: (-scores[i, t], i == o))
        assert found_t[text] == order.index(own) + 1


def test_folds_are_consecutive_and_averaged():
    draw = np.random.default_rng(0)
    scores, image_of_text = draw.normal(size=(6, 12)).astype(np.float32), np.tile(np.arange(6), 2)
    first, second = (np.isin(image_of_text, fold) for fold in ((0, 1, 2), (3, 4, 5)))
    a = retrieval_metrics(scores[:3][:, first], image_of_text[first])
    b = retrieval_metrics(scores[3:][:, second], image_of_text[second] - 3)
    folded = fold_metrics(scores, image_of_text, 3)
    assert folded == {name: pytest.approx((a[name] + b[name]) / 2) for name in a}
    with pytest.raises(ValueError, match="6 images do not divide into folds of 4"):
        fold_metrics(scores, image_of_text, 4)


def test_undefined_input_is_refused():
    with pytest.raises(ValueError, match="an image has no text"):
        ranks(np.zeros((2, 1), dtype=np.float32), np.array([0]))
    with pytest.raises(ValueError, match="NaN"):
        ranks(np.array([[np.nan]], dtype=np.float32), np.array([0]))


def test_median_and_mean_rank_by_hand():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 0.0], [9.0, 8.0, 7.0]])  # text t belongs to image t
    figures = retrieval_metrics(scores, np.arange(3))
    assert figures["image_to_text_median_rank"] == 1 and figures["image_to_text_mean_rank"] == pytest.approx((1 + 1 + 3) / 3)
    # text 0: image 2 is before image 0; text 1: image 2, and image 0 ties; text 2: none
    assert figures["text_to_image_median_rank"] == 2 and figures["text_to_image_mean_rank"] == pytest.approx((2 + 3 + 1) / 3)
