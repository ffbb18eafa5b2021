"""VQA accuracy against frozen outputs of the official script and hand-worked cases."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from pixelbert_plugin.metrics.vqa import CONTRACTIONS, normalize_answer, soft_scores, vqa_accuracy

FROZEN = json.loads((Path(__file__).parent / "vqa_official.json").read_text(encoding="utf-8"))["cases"]


def test_equals_the_official_scripts_outputs():
    for case in FROZEN:
        assert 100 * vqa_accuracy(case["prediction"], tuple(case["answers"])) == pytest.approx(case["accuracy"], abs=1e-8)
        assert normalize_answer(case["prediction"]) == case["normalized"]
    assert len({case["accuracy"] for case in FROZEN}) > 4  # the cases are not all right or all wrong


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_annotators(matches, score):
    answers = ("cat",) * matches + tuple(f"other{index}" for index in range(10 - matches))
    assert vqa_accuracy("cat", answers) == pytest.approx(score)
    assert soft_scores(answers).get("cat", 0.0) == pytest.approx(score)


def test_soft_scores_are_the_leave_one_out_mean():
    answers = ("a1", "b1", "b1", "c1", "c1", "c1", "d1", "d1", "d1", "d1")
    for answer, score in soft_scores(answers).items():
        subsets = list(combinations(answers, 9))
        expected = sum(min(1, subset.count(answer) / 3) for subset in subsets) / len(subsets)
        assert score == pytest.approx(expected)


def test_single_annotation_is_match_or_not():
    assert vqa_accuracy("circle", ("circle",)) == 1.0 and vqa_accuracy("square", ("circle",)) == 0.0


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("A dog.", "dog"),
        ("two dogs", "2 dogs"),
        ("1,000", "1000"),
        ("dont know", "don't know"),
        ("t-shirt", "t shirt"),
        ("3.5", "3.5"),
        ("the  Red/white, cat", "red white cat"),
        ("None", "0"),
    ],
)
def test_normalisation_by_hand(raw, normal):
    assert normalize_answer(raw) == normal


def test_official_tables_size():
    assert len(CONTRACTIONS) == 120 and CONTRACTIONS["youve"] == "you've" and CONTRACTIONS["somebody'd"] == "somebodyd"


def test_the_scripts_count_of_periods_is_kept():
    """It hands a flag over as a count: 32 periods go, and what follows stays."""
    assert normalize_answer("x" + "." * 32) == "x" and normalize_answer("x" + "." * 40) == "x" + "." * 8
