"""Updates, evaluations, hours and cost, worked out by hand."""

from types import SimpleNamespace

import pytest

from pixelbert_plugin.config.options import RunConfig, TrainingConfig
from pixelbert_plugin.planning.lengths import Split
from pixelbert_plugin.planning.schedule import Course, Hours, evaluated
from pixelbert_plugin.planning.simulation import Evaluation


def course(run_type="train_val", pairs=1, epoch=1000, **training):
    return Course.of(RunConfig(run_type=run_type, datasets=["a"], training=TrainingConfig(**training)), epoch, pairs)


@pytest.mark.parametrize(
    ("given", "updates", "samples", "evaluations"),
    [
        ({"batch_size": 100, "max_epochs": 3}, 30, 3000, 1),
        ({"batch_size": 300, "max_epochs": 2}, 8, 2000, 1),  # the last update of each epoch is short
        ({"batch_size": 200, "max_epochs": 3, "pairs": 2}, 30, 3000, 1),  # a sample of pre-training is two pairs
        ({"batch_size": 100, "max_updates": 7}, 7, 700, 1),
        ({"batch_size": 100, "max_updates": 70, "max_epochs": 3}, 30, 3000, 1),
        ({"batch_size": 100, "max_epochs": 3, "evaluation_interval_epochs": 0.5}, 30, 3000, 6),
        ({"batch_size": 100, "max_epochs": 1.2, "evaluation_interval_epochs": 0.5}, 12, 1200, 3),  # and after the last
        ({"batch_size": 100, "max_epochs": 3, "evaluation_interval": 7}, 30, 3000, 5),
        ({"batch_size": 100, "max_epochs": 3, "evaluation_interval": 7, "run_type": "train"}, 30, 3000, 0),
    ],
)
def test_the_length_of_a_training(given, updates, samples, evaluations):
    found = course(**given)
    assert (found.updates, found.samples, found.evaluations) == (updates, samples, evaluations)


def test_hours_and_price():
    """7.2e18 operations at 100 TFLOP/s on each of 4 GPUs are 18,000 s: 5 hours, 20 GPU-hours."""
    found = Hours.of(7.2e18 * 0.75, 7.2e18 * 0.25, tflops=100, gpus=4, price_per_gpu_hour=2.5)
    assert found.total == pytest.approx(5) and found.training == pytest.approx(3.75) and found.price == pytest.approx(50)
    assert Hours.of(1, 1, 1, 1, None).price is None


def test_retrieval_scores_every_pair():
    """5,000 images with 25,000 captions are 125 million pairs; a validation of the first 200 images has 200 · 1,000."""
    task = SimpleNamespace(scores_all_pairs=True, max_val_images=200, max_test_images=None)
    one, split = Evaluation(peak=0, operations=2.0, operations_per_image=10.0), Split(25_000, 5_000, 5_000)
    assert evaluated(task, one, split, is_final=True, is_val=True) == (2 * 125e6 + 10 * 5000, 125_000_000)
    assert evaluated(task, one, split, is_final=False, is_val=True) == (2 * 200e3 + 10 * 200, 200_000)
    plain = SimpleNamespace(scores_all_pairs=False)
    assert evaluated(plain, one, split, is_final=True, is_val=True) == (2 * 25_000, 25_000)
