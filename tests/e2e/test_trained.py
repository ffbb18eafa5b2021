"""The trained model that comes with the package: what it weighs, and what it answers, by each way in which it is asked."""

import json
import random

import easy_vqa
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import pixelbert_plugin
from pixelbert_plugin.commands import predict
from pixelbert_plugin.config.shipped import trained
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import plugins


@pytest.fixture(scope="module")
def model():
    return pixelbert_plugin.load()


def test_a_variable_that_is_none_is_not_taken_for_it():
    """`load(config.get("checkpoint"))` with a mistake in the key."""
    with pytest.raises(UserError, match="path=None: must be the path"):
        pixelbert_plugin.load(None)


def test_it_is_small():
    files = list(trained().folder.iterdir())
    assert sorted(file.name for file in files) == ["model.safetensors", "picture.png", "question.txt"]
    assert sum(file.stat().st_size for file in files) <= 10e6
    tensors = load_file(trained().checkpoint)
    assert tensors["image_encoder.resnet.conv1.weight"].dtype == torch.bfloat16
    assert sum(tensor.numel() for tensor in tensors.values()) <= 4e6


def test_it_answers_what_it_was_not_trained_on(model):
    """200 questions of easy-VQA's test split, of which the question alone tells 67 %."""
    plugins.load(str(ROOT / "projects/easy_vqa"))
    from pixelbert_plugin import registry

    samples = list(registry.build("builder", "easy_vqa", {}, data_dir=ROOT).samples("test"))
    chosen = random.Random(0).sample(samples, 200)
    answers = model.answer([sample.images[0] for sample in chosen], [sample.text for sample in chosen])
    right = sum(found.best.text == sample.answers[0] for found, sample in zip(answers, chosen, strict=True))
    assert right >= 190 and set(easy_vqa.get_answers()) == set(model.processors["answers"].spellings)


def test_its_picture_and_question(model):
    begin = trained()
    found = model.answer(begin.picture, begin.question())
    assert found.best.text == "red" and found.best.probability > 0.5
    assert model.answer(begin.picture, "what shape is in the image?").best.text == "triangle"


def test_the_command_says_which_model_it_asks(capsys):
    begin = trained()
    assert predict.main([f"image={begin.picture}", f"question={begin.question()}", "top_k=1", "format=json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["answer"] == "red"
    assert printed.err == "no checkpoint= is given: this is projects/easy_vqa/trained, which comes with the package\n"
