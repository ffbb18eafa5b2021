"""Parts of the right shape where their files are not."""

import json

import pytest
from conftest import ROOT

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.planning.stand_ins import answer_processor, text_processor, without_files

TEXT, IMAGE = "model_config.pixelbert.text_encoder.params", "model_config.pixelbert.image_encoder.params"


def resolved(*overrides, name="vqa2"):
    return configuration.resolve(ROOT / f"projects/pixelbert/configs/{name}.yaml", overrides)


def nowhere(split):
    raise UserError(f"no {split} here")


def text_options(*overrides):
    assumed = []
    config = resolved(*overrides)
    made = without_files(config.model_config["pixelbert"], assumed)
    assert config.model_config["pixelbert"].text_encoder.params.weights is not None  # the run's own stay
    assert registry.key_of(made, "pooler") == "model_config.pixelbert.pooler"
    return made.text_encoder.params, assumed


@pytest.mark.parametrize(("weights", "layers", "width"), [("bert-base-uncased", 12, 768), ("some/BERT-Large-cased", 24, 1024)])
def test_an_architecture_is_its_names_where_the_file_is_not_here(weights, layers, width):
    params, assumed = text_options(f"{TEXT}.weights={weights}")
    assert (params.weights, params.num_hidden_layers, params.hidden_size) == (None, layers, width)
    assert assumed == [f"{weights} is not at hand: {layers} layers of width {width}, as its name says or BERT-base has"]


def test_an_architecture_is_that_of_a_folder(tmp_path):
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "vocab_size": 99, "max_position_embeddings": 40}))
    params, assumed = text_options(f"{TEXT}.weights={tmp_path}")
    assert params.weights is None and params.max_position_embeddings == 40 and assumed == []
    assert {name: getattr(params, name) for name in sizes} == sizes


def test_no_weights_are_named_and_norms_need_no_gpu():
    config = resolved(f"{IMAGE}.norm=sync", f"{IMAGE}.weights=weights/mine.pth")
    params = without_files(config.model_config["pixelbert"], []).image_encoder.params
    assert (
        params.weights is None and params.norm == "trainable" and config.model_config["pixelbert"].image_encoder.params.weights
    )


def test_a_vocabulary_that_is_not_here_is_as_large_and_has_what_tasks_need():
    assumed = []
    text = text_processor(resolved(name="pretrain"), nowhere, assumed)
    is_word_V, continues_V = text.pieces()
    assert text.vocab_size == 30_522 == len(is_word_V) and text.max_length == 64 and not continues_V.any()
    assert is_word_V.sum() == 30_522 - 4 and text.mask_token_id != text.pad_token_id == 0  # [UNK] is a word
    assert assumed == ["a vocabulary of 30,522 entries: bert-base-uncased is not at hand"]
    learned = text_processor(resolved("processors.text.params={vocabulary: train, vocab_size: 500}"), nowhere, assumed)
    assert learned.vocab_size == 500 and "the most that processors.text.params.vocab_size lets" in assumed[-1]


def test_answers_are_as_many_as_told_or_those_of_their_file(tmp_path):
    assumed = []
    assert len(answer_processor(resolved(), nowhere, 1000, assumed)) == 1000 and assumed == [
        "1,000 answers (answers=N for others)"
    ]
    (file := tmp_path / "answers.txt").write_text("yes\nno\nred\n")
    assert len(answer_processor(resolved(f"processors.answers.params.vocabulary={file}"), nowhere, 1000, assumed)) == 3
    assert len(assumed) == 1
