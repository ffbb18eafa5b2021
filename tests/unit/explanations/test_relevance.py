"""Chefer's relevance, against its rule with gradients by differences: the model runs again with attention changed."""

import numpy as np
import torch

from pixelbert_plugin.encoders import bert_layer

TEXT = "is the disc red"


def log_odds_with(model, batch, index: int, layer: int, changes: torch.Tensor) -> float:
    """The log-odds of an answer where `changes` (h S S, float64) are added to a layer's weights of attention."""
    blocks, seen = model.text_encoder.bert.encoder.layer, []
    original = bert_layer.Layer._attend

    def changed(self, read, hidden, call):
        context, weights = original(self, read, hidden, call)
        seen.append(self)
        if self is blocks[layer]:
            own = self.attention.self
            value = own.value(hidden).unflatten(-1, (own.num_attention_heads, own.attention_head_size)).transpose(1, 2)
            context = ((weights + changes) @ value).transpose(1, 2).flatten(2)
        return context, weights

    bert_layer.Layer._attend = changed
    try:
        with torch.no_grad():
            output = model(batch, return_attentions=True)
    finally:
        bert_layer.Layer._attend = original
    assert len(seen) == len(blocks)
    return float(output.logits["answers"][0, index])


def test_the_rule_with_gradients_by_differences(models, pictures):
    loaded = models["vqa"]
    found = loaded.explain(pictures[0], TEXT, "relevance")
    index = loaded.processors["answers"].spellings.index(found.answer)
    model, batch = loaded.model.double(), loaded.batch([(pictures[0], TEXT)]).to(torch.float64)
    try:
        with torch.no_grad():
            batch.features = model.image_encoder(batch.images, batch.image_sizes)  # once: only the transformer runs again
            attentions = [weights[0] for weights in model(batch, return_attentions=True).attentions]
        relevance = np.eye(attentions[0].shape[-1])
        for layer, weights in enumerate(attentions):
            gradient, step = torch.zeros_like(weights), 1e-5
            for place in np.ndindex(*weights.shape):
                change = torch.zeros_like(weights)
                change[place] = step
                values = [log_odds_with(model, batch, index, layer, sign * change) for sign in (1, -1)]
                gradient[place] = (values[0] - values[1]) / (2 * step)
            mean = (weights * gradient).clamp(min=0).mean(0).numpy()
            relevance = relevance + mean @ relevance
    finally:
        loaded.model.float()
    length = batch.input_ids.shape[1]
    expected = relevance[:length, length:].reshape(length, 1, 2)
    np.testing.assert_allclose(found.images[0].cells.words.numpy(), expected, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(found.images[0].cells.answer.numpy(), expected[0], rtol=2e-3, atol=1e-7)
    assert expected[0].min() >= 0 and expected[0].max() > 1e-6


def test_it_depends_on_the_answer(models, pictures):
    one, other = (models["vqa"].explain(pictures[0], TEXT, "relevance", answer).map for answer in ("yes", "no"))
    assert not np.allclose(one, other, rtol=1e-2)
    told, denied = (models["nlvr2"].explain(pictures[:2], TEXT, "relevance", answer).map for answer in ("True", "False"))
    assert not np.allclose(told, denied, rtol=1e-2)
