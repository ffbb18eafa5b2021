"""Word masking for masked language modelling (BERT: Devlin et al. 2019, section 3.1 and appendix A.1). L tokens, V pieces."""

import numpy as np

MASKED, REPLACED = 0.8, 0.1  # shares of the chosen words that become [MASK] and a random piece; the rest stay as they are


def mask_words(
    ids_L: np.ndarray,
    may_be_masked_V: np.ndarray,
    continues_V: np.ndarray,
    mask_token_id: int,
    probability: float,
    whole_words: bool,
    draw: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose each token with `probability`, special tokens never; with `whole_words` all pieces of a word or none.

    `may_be_masked_V`: False at special tokens; `continues_V`: True at pieces that continue a word ("##ing"). Returns the
    masked ids_L and chosen_L bool. A chosen word is masked, replaced by random pieces or left as it is by one draw.
    """
    is_word_L = may_be_masked_V[ids_L]
    starts_L = ~(continues_V[ids_L] & is_word_L) if whole_words else np.ones(len(ids_L), dtype=bool)
    word_L = np.cumsum(starts_L) - 1  # number of the word, or of the token, that a token belongs to
    words = int(word_L[-1]) + 1
    chosen_L = (draw.random(words) < probability)[word_L] & is_word_L
    fate_L = draw.random(words)[word_L]
    pieces = np.flatnonzero(may_be_masked_V)
    random_L = pieces[draw.integers(len(pieces), size=len(ids_L))]
    masked_L = np.where(chosen_L & (fate_L < MASKED), mask_token_id, ids_L)
    is_replaced_L = chosen_L & (fate_L >= MASKED) & (fate_L < MASKED + REPLACED)
    return np.where(is_replaced_L, random_L, masked_L), chosen_L
