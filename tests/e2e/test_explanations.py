"""The benchmark of explanations: its scenes, its measures by hand, and the program in a quick form."""

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import explanation_backbone
import explanation_measures as measures
import explanation_scenes as scenes
import explanations
import numpy as np
import pytest
import torch
import torchvision

from pixelbert_plugin.miniature.scenes import SEEN

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def answer(scene, text: str) -> str:
    """To a question, worked out from its words."""
    words = text.removesuffix("?").split()
    figures = scene.figures

    def only(wanted):
        (found,) = [figure for figure in figures if wanted in (figure.shape, figure.color)]
        return found

    match words:
        case ["what", "color", "is", "the", shape]:
            return only(shape).color
        case ["what", "shape", "is", "the", color, "object"]:
            return only(color).shape
        case ["where", "is", "the", shape]:
            figure = only(shape)
            return f"{'top' if figure.y < 24 else 'bottom'} {'left' if figure.x < 24 else 'right'}"
        case ["is", "there", "a", color, shape]:
            return "yes" if (color, shape) in [figure.pair for figure in figures] else "no"
        case ["how", "many", color, "objects", "are", "there"]:
            return str(sum(figure.color == color for figure in figures))
        case ["how", "many", plural, "are", "there"]:
            return str(sum(plural in (f"{figure.shape}s", f"{figure.shape}es") for figure in figures))
    raise AssertionError(text)


def test_answers_are_right_and_boxes_hold_what_is_asked_about():
    kinds, answers = Counter(), Counter()
    for scene, asked in scenes.asked(Random(5), 60):
        boxes = [scenes.inside(scene, (place,)) for place in range(len(scene.figures))]
        assert all((one & other).sum() == 0 for one in boxes for other in boxes if one is not other)
        for question in asked:
            assert answer(scene, question.text) == question.answer, question
            named = [figure for figure in scene.figures if {figure.shape, figure.color} & set(question.text[:-1].split())]
            about = [scene.figures[place] for place in question.figures]
            assert all(figure in named for figure in about) or question.kind == "count"
            assert bool(about) == (question.answer not in ("no", "0"))
            kinds[question.kind] += 1
            answers[question.answer] += 1
    assert set(kinds) == set(scenes.KINDS) and abs(answers["yes"] - answers["no"]) <= 2


def test_in_a_changed_scene_one_figure_is_another_and_so_is_the_answer():
    random, number = Random(7), Counter()
    for scene, asked in scenes.asked(Random(6), 25):
        for question in asked:
            if not question.figures:
                continue
            for change in (scenes.changed, scenes.moved):
                if (found := change(scene, question, random)) is None:
                    continue
                after, again = found
                differing = [at for at, pair in enumerate(zip(scene.figures, after.figures, strict=True)) if len(set(pair)) > 1]
                assert len(differing) == 1 and differing[0] in question.figures
                assert again.text == question.text and answer(after, again.text) == again.answer
                one, other = scene.figures[differing[0]], after.figures[differing[0]]
                if change is scenes.changed:
                    assert again.answer != question.answer and other.pair in SEEN
                else:
                    assert (
                        one.pair == other.pair
                        and not (scenes.inside(scene, tuple(differing)) & scenes.inside(after, tuple(differing))).any()
                    )
                number[change.__name__, question.kind] += 1
    assert len(number) == 2 * len(scenes.KINDS)


def test_the_centre_has_no_more_of_the_figures_than_it_must():
    random, covered, drawn = Random(8), np.zeros((scenes.SIDE, scenes.SIDE)), 1200
    for _ in range(drawn):
        scene = scenes.draw_scene(random)
        covered += scenes.inside(scene, tuple(range(len(scene.figures))))
    within = covered[8:-8, 8:-8]  # the outermost pixels are in fewer boxes, whatever is drawn
    assert covered[20:28, 20:28].mean() < 1.15 * within.mean()


def test_features_are_scaled_and_nothing_else():
    net = torchvision.models.resnet18().eval()
    images = torch.randn(1, 64, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = net.layer2(images)
        explanation_backbone.scale(net.layer2, 0.125)
        torch.testing.assert_close(net.layer2(images), before / 8)


def test_measures_by_hand():
    inside = np.zeros((4, 4), dtype=bool)
    inside[:2, :2] = True
    values = np.zeros((4, 4))
    values[0, 1], values[3, 3], values[2, 2] = 3.0, 2.0, -5.0
    assert measures.hit(values, inside) and not measures.hit(-values, inside)
    assert measures.energy(values, inside) == 0.6 and measures.energy(np.zeros((4, 4)), inside) == 0.25
    other = np.zeros((4, 4), dtype=bool)
    other[3, 3] = True
    assert measures.tells_apart(values, inside, [other]) is False  # 3 / 4 against 2
    values[0, 0] = 6.0
    assert measures.tells_apart(values, inside, [other]) is True and measures.tells_apart(values, inside, []) is None


def test_what_a_map_ranks_first_is_replaced_first():
    picture, ground = np.full((10, 10, 3), 9, dtype=np.uint8), np.zeros((10, 10, 3), dtype=np.uint8)
    values = np.arange(100.0).reshape(10, 10)
    found = measures.replaced(picture, ground, values)
    assert len(found) == 2 * len(measures.SHARES)
    for share, without, only in zip(measures.SHARES, found, found[len(measures.SHARES) :], strict=False):
        assert (without == 0).all(-1).sum() == round(100 * share) == (only == 9).all(-1).sum()
        assert (without[9, 9] == 0).all() and (only[9, 9] == 9).all()  # the largest
    assert measures.area(1.0, [1.0] * 6, 1.0) == pytest.approx(1.0)
    assert measures.area(1.0, [0.0] * 6, 0.0) == pytest.approx(0.01)  # a triangle over the first 2 %


def test_baselines_know_nothing_of_the_question():
    picture = np.full((48, 48, 3), 100, dtype=np.uint8)
    picture[4:12, 30:38] = (200, 0, 0)
    found = measures.baselines(picture, 1, 6)
    assert np.unravel_index(found["centre"].argmax(), (48, 48)) in [(row, column) for row in (23, 24) for column in (23, 24)]
    row, column = np.unravel_index(found["contrast"].argmax(), (48, 48))
    assert 4 <= row < 12 and 30 <= column < 38
    assert not np.array_equal(found["random"], measures.baselines(picture, 2, 6)["random"])


def test_ranks_are_means_over_measures_and_ties_are_shared():
    def row(one: float, other: float) -> dict:
        """The first is better by every measure where `one` is larger."""
        sides = {"a": one, "b": other}
        return {
            "methods": {
                name: {measure: value if more else -value for measure, (_, more) in explanations.MEASURES.items()}
                for name, value in sides.items()
            }
        }

    assert explanations.ranks([row(2, 1)], ["a", "b"]) == pytest.approx({"a": 1.0, "b": 2.0})
    assert explanations.ranks([row(1, 1)], ["a", "b"]) == pytest.approx({"a": 1.5, "b": 1.5})
    assert explanations.ranks([row(0, 1), row(3, 1), {"kind": "no measure"}], ["a", "b"])["a"] == pytest.approx(1.0)
    assert math.isnan(explanations.mean([None]))


@pytest.mark.slow
def test_the_program_goes_on_where_it_was_ended(tmp_path):
    pytest.importorskip("captum", reason="captum is not installed: pip install -e '.[explain]'")
    document = tmp_path / "found.md"
    document.write_text(f"before\n{explanations.BEGIN}\nold\n{explanations.END}\nafter\n")
    command = [sys.executable, BENCHMARKS / "explanations.py", "--quick", "--seeds", "4", "--work", tmp_path / "work"]
    options = ["--questions", "2", "--methods", "relevance", "rollout", "--write", document]
    first = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr[-3000:]
    kept = tmp_path / "work/graded_4.jsonl"
    rows = kept.read_text().splitlines(keepends=True)
    assert len(rows) == 2 * len(scenes.KINDS)
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text and "| *centre* |" in text
    kept.write_text("".join(rows[:4]) + rows[4][:10])  # ended in the midst of a row
    again = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "backbone" not in again.stdout and "epoch" not in again.stdout, again.stdout
    assert kept.read_text().splitlines(keepends=True) == rows and document.read_text() == text
