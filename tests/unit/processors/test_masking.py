"""Word masking: BERT's shares, and what is never touched."""

import numpy as np

from pixelbert_plugin import registry
from pixelbert_plugin.processors.masking import mask_words

# [PAD] [UNK] [CLS] [SEP] [MASK], then words, then pieces that continue a word
WORDS = np.array([False, True, False, False, False] + [True] * 95)
CONTINUES = np.array([False] * 60 + [True] * 40)
MASK = 4


def masked(ids, probability=0.15, whole=False, seed=0):
    return mask_words(np.array(ids), WORDS, CONTINUES, MASK, probability, whole, np.random.default_rng(seed))


def test_shares_are_berts():
    draw = np.random.default_rng(1)
    ids = np.r_[2, draw.integers(5, 60, 200_000), 3]
    result, chosen = masked(ids)
    assert abs(chosen.mean() - 0.15) < 0.003
    assert not chosen[0] and not chosen[-1] and np.array_equal(result[~chosen], ids[~chosen])
    became_mask = (result == MASK)[chosen].mean()
    stayed = (result == ids)[chosen].mean()
    # a tenth is replaced by one of 96 words or pieces: one in 96 of these by itself
    assert abs(became_mask - 0.8) < 0.01 and abs(stayed - (0.1 + 0.1 / 96)) < 0.01
    replaced = result[chosen & (result != MASK) & (result != ids)]
    assert WORDS[replaced].all() and len(np.unique(replaced)) == 96


def test_whole_words_are_chosen_together():
    ids = [2, 10, 70, 71, 20, 30, 72, 3]  # "10 70 71" is one word, "30 72" another
    seen = set()
    for seed in range(300):
        result, chosen = masked(ids, 0.5, whole=True, seed=seed)
        assert chosen[1] == chosen[2] == chosen[3] and chosen[5] == chosen[6]
        assert len({value == MASK for value in result[1:4]}) == 1  # one fate for all pieces
        seen.add((bool(chosen[1]), bool(chosen[4]), bool(chosen[5])))
    assert len(seen) == 8
    apart = [masked(ids, 0.5, seed=seed)[1] for seed in range(100)]
    assert any(chosen[1] != chosen[2] for chosen in apart)


def test_a_continuation_behind_a_special_token_is_a_word_of_its_own():
    assert not masked([2, 70, 3], 1.0, whole=True)[1][[0, 2]].any() and masked([2, 70, 3], 1.0, whole=True)[1][1]


def test_the_tokenizer_tells_words_from_special_tokens_and_pieces():
    text = registry.build("processor", "bert_tokenizer", {}, "t")
    text.fit(["red disc", "red disc"])
    is_word, continues = text.pieces()
    names = [text._tokenizer.id_to_token(index) for index in range(text.vocab_size)]
    assert [name for name, word in zip(names, is_word, strict=True) if not word] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    assert {name for name, piece in zip(names, continues, strict=True) if piece} == {n for n in names if n[:2] == "##"}
