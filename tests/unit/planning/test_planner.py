"""The steps of a plan: precision by card, the largest micro-batch, and what is refused."""

import pytest
from conftest import ROOT

from pixelbert_plugin import config as configuration
from pixelbert_plugin.planning.batches import Shape
from pixelbert_plugin.planning.cards import read_gpus
from pixelbert_plugin.planning.options import PlanConfig
from pixelbert_plugin.planning.planner import Planner, choose_precision, largest_that_fits, plan
from pixelbert_plugin.registry.schema import ConfigError

pytest.importorskip("torch", minversion="2.14")  # which a plan needs


def resolved(name, *overrides):
    return configuration.resolve(ROOT / f"projects/pixelbert/configs/{name}.yaml", overrides)


@pytest.mark.parametrize(
    ("start", "most", "available", "wanted"),
    [
        (16, 64, 100 + 10 * 64, 64),  # all of an update's
        (16, 64, 100 + 10 * 40 + 3, 40),
        (16, 64, 100 + 10 * 7, 7),
        (16, 64, 110, 1),
        (16, 64, 109, None),
        (1, 64, 100 + 10 * 5, 5),
        (1, 1, 500, 1),
        (1, 1, 50, None),
        (64, 64, 10_000, 64),
    ],
)
def test_the_largest_micro_batch_that_fits(start, most, available, wanted):
    """A sample takes 10 bytes, and all of them 100 beside."""
    found = largest_that_fits(lambda number: 100 + 10 * number, start, 100 + 10 * start, most, available)
    assert found == wanted


def test_what_is_no_line_is_tried_too():
    def bytes_of(number):
        return 10 * number + (200 if number > 30 else 0)

    found = largest_that_fits(bytes_of, 16, bytes_of(16), 64, 350)
    assert found is not None and bytes_of(found) <= 350


@pytest.mark.parametrize(
    ("precision", "gpus", "wanted", "rate"),
    [
        ("auto", "1xH100", "bf16", 989),
        ("auto", "1xT4", "fp32", 8.1),
        ("fp16", "1xT4", "fp16", 65),
        ("tf32", "1xA100-80", "tf32", 156),
        ("fp32", "1xA100-80", "fp32", 19.5),
        ("apex", "1xV100-16", "apex", 125),
        ("bf16", "1x48GB@360", "bf16", 360),
    ],
)
def test_the_rate_is_that_of_the_precisions_arithmetic(precision, gpus, wanted, rate, caplog):
    found = choose_precision(resolved("vqa2", f"training.precision={precision}"), read_gpus(gpus).card)
    assert (found[0], found[2]) == (wanted, rate) and not caplog.records


@pytest.mark.parametrize("level", ["O0", "O2", "O3"])
def test_apexs_levels(level):
    options = resolved("vqa2", "training.precision=apex", f"precision_config.apex.opt_level={level}")
    assert choose_precision(options, read_gpus("1xV100-32").card)[2] == (15.7 if level == "O0" else 125)


@pytest.mark.parametrize(("precision", "kind"), [("bf16", "bf16"), ("tf32", "tf32")])
def test_arithmetic_that_the_card_lacks_is_refused(precision, kind):
    with pytest.raises(ConfigError, match=rf"training.precision: '{kind}': T4 has no {kind}; it has fp16, fp32"):
        choose_precision(resolved("vqa2", f"training.precision={precision}"), read_gpus("1xT4").card)


def test_an_update_is_shared_by_the_gpus():
    """Pre-training's 4,096 pairs are 2,048 samples: 256 on each of 8 GPUs, of which 64 go together."""
    planner = Planner(resolved("pretrain"), PlanConfig(gpus="8xH100"))
    assert (planner.samples, planner.micro, planner.size) == (256, 64, (800, 1067))
    shape = planner.shape(planner.micro, 16)
    assert shape.groups == 10  # 64 · (113,287 + 7 · 108,077) / (566,747 + 5,400,000) = 9.33
    assert planner.images(64) == pytest.approx(9.33, abs=0.005)
    assert Planner(resolved("vqa2_x152"), PlanConfig(gpus="1xH100", image_size="480x640")).size == (600, 800)


def test_more_gpus_than_pairs_and_what_a_run_would_refuse():
    with pytest.raises(ConfigError, match="4 pairs per update are fewer than the 8 GPUs"):
        plan(resolved("vqa2", "training.batch_size=4", "training.micro_batch_size=4"), PlanConfig(gpus="8xH100"))
    with pytest.raises(ConfigError, match=r"is not set, and neither is training\.max_epochs"):
        plan(resolved("vqa2", "training.max_epochs=null"), PlanConfig(gpus="8xH100"))


def test_operations_are_those_of_the_average_number_of_images():
    """With 9.25 images a quarter of the way between those of 9 and those of 10."""
    planner = Planner(resolved("mini/pretrain"), PlanConfig(gpus="1xH100"))
    planner.images = lambda samples: 9.25
    with planner.simulation as simulation:
        steps = [simulation.step(Shape(planner.micro, images, 16, planner.size)) for images in (9, 10)]
        below, above = (step.forward + step.backward for step in steps)
        assert planner.operations_per_sample() == pytest.approx((0.75 * below + 0.25 * above) / planner.micro)
    assert below < above


def test_compiled_blocks_are_planned_as_they_are_written():
    planner = Planner(resolved("mini/vqa2", "training.compile=blocks"), PlanConfig(gpus="1xL4"))
    assert "blocks as they are written: what training.compile changes of memory and time is not counted" in planner.assumed
