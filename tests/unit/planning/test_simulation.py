"""A training without data, against published sizes and against the same training with data, on a CPU."""

import pytest
import torch
from conftest import ROOT

from pixelbert_plugin import config as configuration
from pixelbert_plugin.build import build_model, build_optimizers, learn_task
from pixelbert_plugin.checkpoint.start import Start
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.run_data import RunData, build_builders
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.planning.batches import Shape
from pixelbert_plugin.planning.simulation import Simulation
from pixelbert_plugin.precision import native
from pixelbert_plugin.registry.schema import ConfigError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SHAPE = Shape(samples=4, groups=2, tokens=16, size=(64, 96))

pytest.importorskip("torch", minversion="2.14")  # which a plan needs


def nowhere(split):
    raise UserError(f"no {split} here")


def simulation(name, *overrides, precision="fp32", options=None, device=GPU):
    config = configuration.resolve(ROOT / f"projects/pixelbert/configs/{name}.yaml", overrides)
    return Simulation(config, native.choose(precision, options or {}, CPU), device, nowhere, 3129, [])


def test_the_papers_sizes():
    """BERT-base has 109,482,240 parameters (Devlin et al.: 110M), of them 768 · 769 in the pooler, which Pixel-BERT leaves out;
    ResNet-50 25,557,032 (torchvision), of them 2049 · 1000 in the classifier. Adam in float32: 4 bytes of weight, 4 of gradient
    and 8 of state; SGD with momentum: 4 of state."""
    with simulation("vqa2") as made:
        found = made.weights()
    cnn = found.numbers["image_encoder"]
    assert found.numbers["text_encoder"] == 109_482_240 - 768 * 769 and cnn == 25_557_032 - 2049 * 1000
    assert found.numbers["projection"] == 2048 * 768 + 768
    rest = sum(found.numbers.values()) - cnn
    adams_steps = 4 * sum(  # of each weight
        not name.startswith("image_encoder.") for name, _ in made.model.named_parameters()
    )
    assert found.gradients == 4 * (cnn + rest) and found.optimizer == 4 * cnn + 8 * rest + adams_steps
    assert found.held - found.gradients == sum(b.numel() * b.element_size() for b in made.model.buffers())
    assert found.largest_optimized == 4 * rest and found.masters == 0


def test_recomputed_blocks_keep_less_and_cost_another_forward_pass_of_theirs():
    """All but the stem, the heads and what lies between the two is in a block."""
    with simulation("mini/vqa2") as made:
        usual = made.step(SHAPE)
    with simulation("mini/vqa2", "training.gradient_checkpointing=true") as made:
        recomputed = made.step(SHAPE)
    assert recomputed.forward == usual.forward and recomputed.saved < 0.5 * usual.saved
    assert 0.8 * usual.forward < recomputed.backward - usual.backward <= usual.forward


def test_half_weights_have_float32_masters_and_half_gradients():
    options = {"apex": {"opt_level": "O2", "backend": "native"}}
    with simulation("mini/vqa2", precision="apex", options=options) as made:
        found, step = made.weights(), made.step(SHAPE)
    halves = [p.numel() for p in made.model.parameters() if p.dtype == torch.float16]
    full = [p.numel() for p in made.model.parameters() if p.dtype == torch.float32]  # of batch norms
    assert halves and full and found.masters == 4 * sum(halves)
    assert found.gradients == 2 * sum(halves) + 4 * sum(full) and step.saved > 0


def test_a_frozen_cnn_has_no_gradients_and_keeps_nothing():
    with simulation("mini/vqa2") as made:
        trained, all_weights = made.step(SHAPE), made.weights()
    with simulation("mini/vqa2", "model_config.pixelbert.freeze_image_encoder=true") as made:
        frozen, rest = made.step(SHAPE), made.weights()
    assert rest.gradients == all_weights.gradients - 4 * all_weights.numbers["image_encoder"]
    assert frozen.saved < trained.saved / 2 and frozen.forward == trained.forward and frozen.backward < trained.backward


@pytest.mark.slow
def test_activations_grow_with_pairs_images_tokens_and_pixels():
    with simulation("mini/pretrain") as made:
        base = made.step(SHAPE).saved
        assert made.step(Shape(8, 4, 16, (64, 96))).saved == pytest.approx(2 * base, rel=0.1)
        for other in (
            Shape(8, 2, 16, (64, 96)),
            Shape(4, 4, 16, (64, 96)),
            Shape(4, 2, 32, (64, 96)),
            Shape(4, 2, 16, (96, 96)),
        ):
            assert made.step(other).saved > 1.05 * base, other
    with simulation("mini/pretrain", "model_config.pixelbert.num_sampled_pixels=1") as made:
        assert made.step(SHAPE).saved < base


def test_bfloat16_keeps_less_but_for_copies_of_the_weights():
    with simulation("mini/vqa2") as made:
        full, weights = made.step(SHAPE), made.weights()
    with simulation("mini/vqa2", precision="bf16") as made:
        half = made.step(SHAPE)
    copies = 2 * (weights.numbers["image_encoder"] + weights.numbers["heads"])
    assert copies < half.saved < full.saved + 2 * sum(weights.numbers.values()) and half.forward == full.forward
    assert half.saved - 2 * weights.numbers["image_encoder"] < full.saved


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_saved_is_what_a_training_saves(tiny_config, precision):
    """The same micro-batch with data: the storages that autograd saves, weights left out."""
    config = configuration.resolve(tiny_config, ["training.bucket_by_size=true", "training.batch_size=6"])
    data = RunData.of(build_builders(config.datasets, config.dataset_config, config.env), config.splits())
    task, processors = learn_task(config.chosen_task, config.processors, data, Start())
    loader = Loaders(config.training, None, task, processors, CPU).of(data.splits["train"])
    batches, _ = next(loader.updates(0, 6, None, 2))
    numbers = native.choose(precision, {}, CPU)
    model = build_model(config.chosen_model, task, processors, config.training.seed).train()
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    storages = {}

    def saved(value):
        if value.untyped_storage().data_ptr() not in own:
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    batch = loader.ready(batches[0])
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda value: value):
        losses = Losses(model, task, numbers)(batch)
    measured = sum(storages.values())
    shape = Shape(len(batch), len(batch.image_seeds), batch.input_ids.shape[1], tuple(batch.images.shape[-2:]))
    has_padding = bool((batch.image_sizes != torch.tensor(shape.size)).any())
    with Simulation(config, numbers, CPU, data.samples, 2, []) as made:
        planned, weights = made.step(shape), made.weights()
    assert losses and not has_padding and planned.saved == pytest.approx(measured, rel=0.03)
    assert weights.numbers["heads"] == sum(p.numel() for p in model.heads.parameters())
    optimizers = build_optimizers(config.optimizer, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers.values():
        optimizer.step()
    states = [value for each in optimizers.values() for state in each.state.values() for value in state.values()]
    assert weights.optimizer == sum(v.numel() * v.element_size() for v in states if isinstance(v, torch.Tensor))


def test_scoring_every_pair_costs_the_transformer_alone_for_each():
    with simulation("mini/flickr30k_retrieval") as made:
        few, many = made.evaluation(Shape(8, 8, 16, (64, 96))), made.evaluation(Shape(32, 32, 16, (64, 96)))
    assert few.operations == many.operations > 0 and few.operations_per_image == many.operations_per_image > few.operations
    assert few.peak <= many.peak


def test_other_optimizers_state_is_their_own():
    """Lamb's is Adam's; SGD without momentum has none."""
    with simulation("mini/vqa2", "optimizer.cnn.type=sgd", "optimizer.cnn.params.momentum=0") as made:
        found = made.weights()
    cnn = found.numbers["image_encoder"]
    assert found.optimizer == pytest.approx(8 * (sum(found.numbers.values()) - cnn), rel=0.01)


def test_a_group_without_optimizer_is_refused_as_by_the_run():
    made = simulation("mini/vqa2")
    made.config.optimizer.pop("cnn")
    with made, pytest.raises(ConfigError, match=r"optimizer\.cnn: is not set"):
        made.weights()
