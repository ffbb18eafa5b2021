"""Masked words, against the softmax over the vocabulary by hand."""

import pytest

from pixelbert_plugin import UserError
from pixelbert_plugin.asking.fill import joined

SPECIAL = {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}


def by_hand(model, image, text):
    """For each [MASK], the probability of each entry that is no special token."""
    vocabulary = model.processors["text"]._tokenizer.get_vocab()
    found = []
    for row in model(image, text).logits["mlm"].double():
        values = (row - row.max()).exp()
        found.append({word: float(values[place] / values.sum()) for word, place in vocabulary.items() if word not in SPECIAL})
    return found


def test_words_are_those_of_the_softmax_over_the_vocabulary(models, pictures):
    model, text = models["pretrain"], "a [MASK] disc on a [MASK]"
    found, expected = model.fill(pictures[0], text, top_k=4), by_hand(model, pictures[0], text)
    assert found.text == text and len(found.masks) == len(expected) == 2
    for words, values in zip(found.masks, expected, strict=True):
        assert [filled.word for filled in words] == sorted(values, key=values.get, reverse=True)[:4]
        assert [filled.probability for filled in words] == pytest.approx(sorted(values.values(), reverse=True)[:4], rel=1e-4)
    first, second = found.masks[0][0].word, found.masks[1][0].word
    assert found.best.text == joined("a ", first, " disc on a [MASK]")
    assert found.masks[1][2].text == joined("a [MASK] disc on a ", found.masks[1][2].word, "")
    assert found.filled == joined(joined("a ", first, " disc on a "), second, "")


def test_a_batch_of_texts_with_other_numbers_of_masks(models, pictures):
    model = models["pretrain"]
    texts = ["a [MASK] disc", "[MASK] [MASK] is it", "what color is [MASK]"]
    found = model.fill(pictures[3], texts, top_k=5)
    assert [len(each.masks) for each in found] == [1, 2, 1]
    for text, each in zip(texts, found, strict=True):
        alone = model.fill(pictures[3], text, top_k=5)
        for words, same in zip(each.masks, alone.masks, strict=True):
            assert [filled.word for filled in words] == [filled.word for filled in same]
            assert [filled.probability for filled in words] == pytest.approx([filled.probability for filled in same], abs=1e-6)
    every = model.fill(pictures[3], texts[0], top_k=10_000).masks[0]
    assert {filled.word for filled in every} == by_hand(model, pictures[3], texts[0])[0].keys()


def test_a_piece_of_a_word_is_joined_to_it():
    assert joined("a dis", "##c", " here") == "a disc here" and joined("a dis ", "##cs", "") == "a discs"
    assert joined("a ", "disc", " here") == "a disc here" and joined("a ", "##", "") == "a ##"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red disc", "text='a red disc': has no [MASK], the word that is asked for; whether a text belongs to the image is"),
        ("a [mask] disc", "it is written in capitals"),
        (
            "[MASK] " + "disc " * 20 + "[MASK]",
            "1 of its 2 [MASK] lie behind the 12 tokens that the model reads; shorten",
        ),
    ],
)
def test_a_text_without_a_mask_that_is_read(models, pictures, text, message):
    with pytest.raises(UserError) as caught:
        models["pretrain"].fill(pictures[0], text)
    assert message in str(caught.value)
