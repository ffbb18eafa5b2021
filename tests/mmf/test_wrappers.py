"""Our components in MMF's registry, used as MMF's models and data sets use them."""

import copy
import sys

import numpy as np
import pytest
import torch
from conftest import draw_image
from mmf_checkout import CHECKOUT, needs_mmf
from omegaconf import OmegaConf

from pixelbert_plugin import registry as ours

pytestmark = needs_mmf

LIMITS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def mmf():
    """MMF with our components in its registry, in this process."""
    sys.path.insert(0, CHECKOUT)
    from pixelbert_plugin.mmf.compat import import_mmf
    from pixelbert_plugin.mmf.register import register_all

    import_mmf()
    register_all()
    register_all()  # twice does nothing new
    from mmf.common.registry import registry

    return registry


@pytest.mark.parametrize("kind", ["model", "encoder", "processor", "builder", "scheduler"])
def test_every_component_is_there_under_the_prefix(mmf, kind):
    get = getattr(mmf, f"get_{kind}_class")
    for name in ours.names(kind):
        assert get(f"pixelbert_{name}") is not None, name
        assert get(name) is not None
    assert ours.names(kind)


def test_mmfs_own_data_sets_keep_their_names(mmf):
    from mmf.datasets.builders.vqa2.builder import VQA2Builder

    from pixelbert_plugin.mmf.names import mmf_name, own_name

    assert mmf.get_builder_class("vqa2") is VQA2Builder
    assert mmf_name("builder", "vqa2") == "pixelbert_vqa2" and own_name("builder", "pixelbert_vqa2") == "vqa2"
    assert mmf_name("builder", "flickr30k") == "flickr30k"  # MMF has none
    assert mmf.get_builder_class("flickr30k") is mmf.get_builder_class("pixelbert_flickr30k")
    assert mmf_name("model", "pixelbert") == "pixelbert"


def test_an_image_encoder_gives_our_pixels(mmf):
    encoder_class = mmf.get_encoder_class("resnet18")
    torch.manual_seed(3)
    encoder = encoder_class.from_params(norm="frozen").eval()
    torch.manual_seed(3)
    own = ours.build("encoder", "resnet18", {"norm": "frozen"}).eval()
    images, sizes = torch.randn(2, 3, 64, 128), torch.tensor([[64, 128]] * 2)
    with torch.no_grad():
        assert torch.equal(encoder(images), own(images, sizes).pixels) and encoder.out_dim == 512
        assert torch.equal(encoder(images, sizes), encoder(images))


def test_a_text_encoder_gives_berts_states(mmf):
    encoder = mmf.get_encoder_class("bert")(OmegaConf.create({"name": "bert", "vocab_size": 50, **LIMITS})).eval()
    ids, mask = torch.randint(1, 50, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.no_grad():
        expected = encoder.module.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(encoder(ids, mask, return_sequence=True), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(ids, mask), expected[:, 0], rtol=1e-4, atol=1e-5)
    assert encoder.out_dim == 32


def test_processors_take_and_give_dicts(mmf, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "disc"]))
    options = OmegaConf.create({"vocabulary": str(tmp_path), "max_length": 6, "data_dir": "added by MMF"})
    text = mmf.get_processor_class("pixelbert_bert_tokenizer")(options)
    found = text({"text": "Red disc"})
    assert found["input_ids"].tolist() == [2, 5, 6, 3, 0, 0] and found["input_mask"].tolist() == [1, 1, 1, 1, 0, 0]
    draw_image(tmp_path / "a.png", "red", 1, (80, 40))
    image = mmf.get_processor_class("pixelbert_image")(OmegaConf.create({"short_edge": 20, "long_edge": 100}))
    pixels = image({"image": tmp_path / "a.png"})["image"]
    assert pixels.shape == (3, 20, 40) and abs(float(pixels.mean())) < 3
    answers = mmf.get_processor_class("pixelbert_answers")(OmegaConf.create({"min_occurrences": 1}))
    answers.processor.fit(["yes", "no"])
    scores = answers({"answers": ["yes"] * 3 + ["no"] * 7})["answers_scores"]
    place = answers.processor.answers.index("yes")
    assert scores[place] == pytest.approx(np.mean([1.0] * 7 + [2 / 3] * 3))  # the official mean over nine of ten annotators


def test_one_optimizer_of_two_steps_both_and_takes_its_state_back(mmf):
    from pixelbert_plugin.mmf.optim import JointOptimizer

    def make():
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(2, 3))]
        params = [{"params": [weight], "names": [name], "group": name} for weight, name in zip(weights, "ab", strict=True)]
        choice = {"a": {"type": "sgd", "params": {"lr": 0.1}}, "b": {"type": "adamw", "params": {"lr": 0.01}}}
        return weights, JointOptimizer(params, **choice)

    def step(weights, optimizer, number):
        for weight in weights:
            weight.grad = torch.full_like(weight, 0.5 + number)
        optimizer.step()

    weights, optimizer = make()
    plain = [weight.detach().clone().requires_grad_() for weight in weights]
    references = [
        torch.optim.SGD([plain[0]], lr=0.1, momentum=0.9, weight_decay=5e-4),
        torch.optim.AdamW([plain[1]], lr=0.01, weight_decay=1e-2),
    ]
    for number in range(3):
        step(weights, optimizer, number)
        for weight, reference in zip(plain, references, strict=True):
            weight.grad = torch.full_like(weight, 0.5 + number)
            reference.step()
    for weight, expected in zip(weights, plain, strict=True):
        torch.testing.assert_close(weight, expected)
    again, restored = make()
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for weight, value in zip(again, weights, strict=True):
        weight.data.copy_(value.data)
    restored.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] = 0.3  # a scheduler reaches the optimizers inside
    step(weights, optimizer, 5)
    step(again, restored, 5)
    for weight, expected in zip(again, weights, strict=True):
        assert torch.equal(weight, expected)
    with pytest.raises(ValueError, match="the state is of c, not of a, b"):
        restored.load_state_dict({"c": {}})
