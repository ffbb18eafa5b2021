"""The parts of a GPU's memory, added up by hand."""

from pixelbert_plugin.planning import memory
from pixelbert_plugin.planning.simulation import Evaluation, Step, Weights

WEIGHTS = Weights(
    numbers={"all": 250},
    held=1000,
    gradients=800,
    masters=0,
    optimizer=1600,
    largest_optimized=600,
    largest_unit=100,
    outside_units=200,
    checkpoint=2600,
)
STEP = Step(saved=5000, peak=5300, peak_with_gradients=5400, forward=0, backward=0)


def of(gpus=1, parallel="ddp", accumulates=False, step=STEP, has_gpu=False):
    return memory.of_training(WEIGHTS, step, gpus, parallel, accumulates, has_gpu)


def test_gradients_of_a_single_micro_batch_come_as_activations_go():
    found = of()
    assert found.total == 1000 + 1600 + 5400
    assert (found.gradients, found.activations, found.working_memory) == (800, 5000, 5400 - 5000 - 800)


def test_those_of_an_earlier_micro_batch_are_there_from_the_beginning():
    assert of(accumulates=True).total == 1000 + 1600 + 5300 + 800


def test_the_optimizers_step_can_be_the_highest_moment():
    small = Step(saved=50, peak=60, peak_with_gradients=820, forward=0, backward=0)
    assert of(step=small).total == 1000 + 1600 + 800 + 600


def test_ddp_keeps_a_second_copy_of_the_gradients():
    found = of(gpus=4)
    assert found.ddp_buckets == 800 and found.total == 1000 + 1600 + 5300 + 800 + 800


def test_fsdp_keeps_a_share_and_what_it_gathers():
    found = of(gpus=4, parallel="fsdp")
    assert found.weights == 250 + 200 + 2 * 100 and found.gradients == 200 + 100 and found.optimizer_state == 400
    assert found.ddp_buckets == 0 and found.total == 650 + 400 + 5300 + 300
    assert of(gpus=1, parallel="fsdp") == of(gpus=1)


def test_a_gpu_takes_what_is_no_tensors():
    tensors = of().total
    found = of(has_gpu=True)
    assert found.total == tensors + 600_000_000 + 500_000_000 + round(0.05 * tensors)
    assert of(gpus=2, has_gpu=True).communication == 400_000_000


def test_an_evaluation_has_neither_gradients_nor_activations():
    assert memory.of_evaluation(of(), Evaluation(peak=700, operations=1.0)) == 1000 + 1600 + 700
