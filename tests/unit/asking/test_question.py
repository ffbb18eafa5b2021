"""What all questions share: what is given, in what forms, and what is wrong with it."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelbert_plugin import UserError
from pixelbert_plugin.data.images import read_image
from unit.conftest import make

QUESTION = "what color is it"


def test_an_image_in_every_form_is_the_same(models, pictures):
    model, path = models["vqa"], pictures[0]
    expected = model.answer(path, QUESTION)
    array = np.asarray(Image.open(path).convert("RGB"))
    tensor = read_image(path)
    assert tensor.shape == (3, *array.shape[:2])
    for image in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()).getbuffer(), Image.open(path), array, tensor):
        assert model.answer(image, QUESTION) == expected, type(image)
    assert model.answer(path, QUESTION, top_k=np.int64(5)) == expected
    forms = [path, array, tensor, Image.open(path)]
    assert [each.best.text for each in model.answer(forms, QUESTION)] == [expected.best.text] * 4


def test_small_images_and_long_texts_are_taken_as_in_training(models, tmp_path, caplog):
    model, path = models["vqa"], tmp_path / "small.png"
    Image.new("RGB", (1, 1), "red").save(path)
    answers = model.answer(path, QUESTION)  # enlarged by the rule of training
    logits = model(np.full((1, 1, 3), (255, 0, 0), np.uint8), QUESTION).logits["answers"]
    assert answers.best.probability == pytest.approx(float(logits.sigmoid().max())) and not caplog.text
    long = "is the disc red or blue " * 3
    cut = model.answer(path, long)
    assert "1 text(s) are longer than 12 tokens and were cut, as in training" in caplog.text
    assert cut.question == long and cut.answers == model.answer(path, "is the disc red or blue is the disc red").answers


def wrong(model, image):
    """Calls with a mistake, and what is said of it."""
    other = "a [MASK] disc"
    return [
        (lambda: model["vqa"].answer("nowhere.jpg", QUESTION), "nowhere.jpg: No such file"),
        (lambda: model["vqa"].answer(image.parent, QUESTION), "is a folder, not an image file"),
        (lambda: model["vqa"].answer(b"none", QUESTION), "not a readable image (4 bytes; no known image format)"),
        (lambda: model["vqa"].answer(7, QUESTION), "a int; give a path, encoded bytes, Pillow's image, or uint8, RGB"),
        (lambda: model["vqa"].answer(np.zeros((4, 4, 3)), QUESTION), "an array of float64, (4, 4, 3); give"),
        (lambda: model["vqa"].answer(torch.zeros(4, 4, 3).byte(), QUESTION), "a tensor of uint8, (4, 4, 3); give"),
        (lambda: model["vqa"].answer(torch.zeros(3, 4, 4), QUESTION), "a tensor of float32, (3, 4, 4); give"),
        (lambda: model["vqa"].answer(torch.zeros(3, 0, 4).byte(), QUESTION), "4 × 0 pixels"),
        (lambda: model["vqa"].answer(image, 5), "question=5: must be text (str), not int"),
        (lambda: model["vqa"].answer(image, [QUESTION, None]), "question=None: must be text (str), not NoneType"),
        (lambda: model["vqa"].answer(image, " "), "question=' ': is empty"),
        (lambda: model["vqa"].answer(image, "\ud800"), "holds a character that is no Unicode text"),
        (lambda: model["vqa"].answer(image, []), "question=[]: is an empty list; give one or more"),
        (lambda: model["vqa"].answer([], QUESTION), "image=[]: is an empty list; give one or more"),
        (lambda: model["vqa"].answer([image] * 3, [QUESTION] * 2), "answer: 3 of image and 2 of question; give lists of equal"),
        (lambda: model["vqa"].answer(image, QUESTION, top_k=0), "top_k=0: must be a whole number from 1 on"),
        (lambda: model["vqa"].answer(image, QUESTION, top_k=True), "top_k=True: must be"),
        (lambda: model["vqa"].answer(image, QUESTION, batch_size=0.5), "batch_size=0.5: must be"),
        (lambda: model["retrieval"].search([image], []), "text=[]: is an empty list"),
        (lambda: model["retrieval"].search([image], QUESTION, batch_size=0), "batch_size=0: must be"),
        (
            lambda: model["vqa"].fill(image, other),
            "fill: the task 'vqa' of 'save/vqa' cannot be asked this (its heads: answers); it can be asked answer(image, ",
        ),
        (
            lambda: model["pretrain"].compare(image, image, other),
            "compare: the task 'pretrain' of 'save/pretrain' cannot be asked this (its heads: mlm, itm); it can be asked "
            "fill(image, text with [MASK]), match(image, texts) and search(images, text)",
        ),
        (lambda: model["nlvr2"].search([image], other), "search: the task 'nlvr2'"),
        (lambda: model["retrieval"].answer(image, other), "answer: the task 'retrieval'"),
    ]


@pytest.mark.parametrize("number", range(len(wrong({}, Path()))))
def test_a_mistake_is_one_line(models, pictures, number):
    call, message = wrong(models, pictures[0])[number]
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_task_can_be_asked_what_its_heads_say():
    assert make("pretrain", itm=False).task.asked().keys() == {"fill"}
    assert make("pretrain", mlm=False).task.asked().keys() == {"match"}


def test_a_task_of_somebody_elses_can_be_asked_too_or_only_called(models, pictures, monkeypatch):
    model = models["vqa"]
    monkeypatch.setattr(model.task, "asked", dict)
    with pytest.raises(UserError, match=r"it can be asked nothing by a method: model\(image, text\)\.logits has its logits"):
        model.answer(pictures[0], QUESTION)
    monkeypatch.setattr(model.task, "asked", lambda: {"answer": lambda logits: logits["answers"].softmax(1)})
    answers = model.answer(pictures[0], QUESTION, top_k=7).answers
    monkeypatch.setattr(model.task, "asked", lambda: {"answer": lambda logits: logits["answers"][:, :2]})
    with pytest.raises(UserError, match=r"VqaTask \(.*vqa\.py:\d+\): asked\(\)\['answer'\]\(logits\) must return a float"):
        model.answer(pictures[0], QUESTION)
    assert sum(answer.probability for answer in answers) == pytest.approx(1)


def test_a_bad_file_among_many_is_named(models, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"none")
    with pytest.raises(UserError, match=r"broken\.png: not a readable image"):
        models["vqa"].answer([*pictures, tmp_path / "broken.png"], QUESTION, batch_size=2)


def test_a_file_that_several_ask_about_is_read_once_a_batch(models, pictures, monkeypatch):
    model, read = models["vqa"], []
    decode = model.processors["image"].decode
    monkeypatch.setattr(model.processors["image"], "decode", lambda source: read.append(source) or decode(source))
    model.answer(pictures[0], [QUESTION] * 6, batch_size=3)
    assert read == [pictures[0]] * 2
    read.clear()
    model.answer(pictures[0], [QUESTION] * 3)
    assert read == [pictures[0]]
