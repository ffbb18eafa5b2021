"""Integrated gradients: captum's, against the axiom that they add up, a linear model, and a rule of midpoints."""

import numpy as np
import pytest
import torch

from pixelbert_plugin import UserError, registry
from pixelbert_plugin.explanations.integrated_gradients import IntegratedGradients, blurred, repeated
from pixelbert_plugin.types import ExplanationInput, ModelOutput

pytest.importorskip("captum", reason="captum is not installed: pip install -e '.[explain]'")
TEXT = "is the disc red"
SHARP = {"blur": 0.0}


class Linear(torch.nn.Module):
    """The score is the sum of the image's pixels times weights; so each one's share is its own product."""

    frozen_image_encoder = None

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, batch):
        sums = (batch.images * self.weights).flatten(1).sum(1)
        logits = {"answers": sums[batch.image_index].sum(1, keepdim=True)}
        return ModelOutput(logits=logits, text=None, pixels=None, pixel_mask=None, pixel_positions=None, grid=(1, 1))


def given(models, pictures, model, task="vqa", images=1) -> ExplanationInput:
    loaded = models[task]
    batch = loaded.batch([(pictures[0] if images == 1 else [pictures[place] for place in range(images)], TEXT)])
    return ExplanationInput(
        model=model or loaded.model,
        batch=batch,
        score=lambda output: next(iter(output.logits.values()))[:, 0],
        read_at=0,
        words=[],
        autocast=loaded.autocast,
        normalization=loaded.processors["image"].normalization,
    )


@pytest.mark.parametrize("images", [1, 2])
def test_of_a_linear_model_each_pixel_has_its_product(models, pictures, images):
    asked = given(models, pictures, None, "nlvr2" if images == 2 else "vqa", images)
    weights = torch.randn(3, *asked.batch.images.shape[-2:], generator=torch.Generator().manual_seed(1))
    asked.model = Linear(weights)
    config = registry.configure("explanation", "integrated_gradients", SHARP, "options")
    found = IntegratedGradients(config)(asked)
    assert len(found) == images
    for image, size, each in zip(asked.batch.images, asked.batch.image_sizes.tolist(), found, strict=True):
        expected = (image * weights).sum(0)[: size[0], : size[1]].clamp(min=0)
        torch.testing.assert_close(each.answer, expected, rtol=1e-4, atol=1e-5)
        assert each.words is None


def test_from_black_the_difference_counts(models, pictures):
    asked = given(models, pictures, None)
    asked.model = Linear(torch.ones(3, *asked.batch.images.shape[-2:]))
    config = registry.configure("explanation", "integrated_gradients", SHARP | {"baseline": "black"}, "options")
    (found,) = IntegratedGradients(config)(asked)
    mean, std = (torch.tensor(values)[:, None, None] for values in asked.normalization)
    expected = (asked.batch.images[0] + mean / std).sum(0)  # so much lighter than black each pixel is
    torch.testing.assert_close(found.answer, expected.clamp(min=0), rtol=1e-4, atol=1e-4)
    asked.normalization = None
    with pytest.raises(UserError, match="baseline=black: the processor of images does not say how it normalises"):
        IntegratedGradients(config)(asked)


def test_it_is_the_mean_gradient_along_the_path(models, pictures):
    """Of the whole model, by another rule: the gradients at the middles of 32 equal steps."""
    loaded = models["vqa"]
    found = loaded.explain(pictures[0], TEXT, "integrated_gradients", "yes", options=SHARP | {"num_steps": 16})
    index = loaded.processors["answers"].spellings.index("yes")
    batch, total = loaded.batch([(pictures[0], TEXT)]), 0
    whole = batch.images
    for step in range(32):
        batch.images = (whole * (step + 0.5) / 32).requires_grad_()
        loaded.model(batch).logits["answers"][0, index].backward(inputs=[batch.images])
        total = total + batch.images.grad / 32
    expected = (whole * total)[0].sum(0).clamp(min=0).detach()
    difference = (found.images[0].cells.answer - expected).abs().sum() / expected.sum()
    assert difference < 0.05  # the path has kinks, between which the two rules have other points
    assert found.words == () and found.map.shape == (48, 64)
    with pytest.raises(UserError, match="there are 0 maps of words here"):
        found.word_map(0)


def test_a_frozen_cnn_has_a_gradient_too(models, pictures, monkeypatch):
    """The model itself takes none through it."""
    loaded = models["vqa"]
    free = loaded.explain(pictures[0], TEXT, "integrated_gradients", "yes")
    monkeypatch.setattr(loaded.model.config, "freeze_image_encoder", True)
    frozen = loaded.explain(pictures[0], TEXT, "integrated_gradients", "yes")
    assert free.map.max() > 0
    np.testing.assert_allclose(frozen.map, free.map, rtol=1e-3, atol=1e-3 * free.map.max())


def test_texts_are_repeated_each_with_its_own_images(models, pictures):
    asked = given(models, pictures, None, "nlvr2", 2)
    images = torch.cat([asked.batch.images, asked.batch.images * 0.5, asked.batch.images * 0.2])
    batch = repeated(asked, images, 3)
    assert batch.image_index.tolist() == [[0, 1], [2, 3], [4, 5]]
    with torch.no_grad():
        logits = asked.model(batch).logits["pair"]
        for place, factor in enumerate((1.0, 0.5, 0.2)):
            asked.batch.images = images[:2] * factor
            torch.testing.assert_close(logits[place], asked.model(asked.batch).logits["pair"][0], rtol=1e-4, atol=1e-5)


def test_of_masked_words_the_first_is_explained(models, pictures):
    """Where a batch holds the text several times."""
    model, text = models["pretrain"], "a [MASK] [MASK] disc"
    one = model.explain(pictures[0], text, "integrated_gradients", options={"images_at_once": 1})
    more = model.explain(pictures[0], text, "integrated_gradients", options={"images_at_once": 5})
    np.testing.assert_allclose(more.map, one.map, rtol=1e-3, atol=1e-3 * one.map.max())
    assert one.map.max() > 0


def test_the_blur_is_a_gaussian():
    values = torch.zeros(21, 21)
    values[10, 10] = 1.0
    found = blurred(values, 2 / 21)  # sigma 2
    assert float(found.sum()) == pytest.approx(1)
    assert float(found[10, 12] / found[10, 10]) == pytest.approx(np.exp(-0.5))
    assert float(found[12, 12] / found[10, 10]) == pytest.approx(np.exp(-1.0))
    assert torch.equal(blurred(values, 0.0), values)


def test_without_captum_one_line_says_how_to_get_it(models, pictures, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"needs the package captum; pip install 'pixelbert_plugin\[explain\]'$"):
        models["vqa"].explain(pictures[0], TEXT, "integrated_gradients")
