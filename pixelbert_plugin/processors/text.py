"""Text processor: WordPiece with [CLS] and [SEP], from the hub, a folder, or learned from the train split."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import WordPiece

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import hub
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.options import SPECIAL, WordPieceTokenizerConfig
from pixelbert_plugin.system.environment import variable
from pixelbert_plugin.system.foreign import what_else

logger = logging.getLogger(__name__)
MOST_IDS = 1 << 22  # the largest published vocabularies have a quarter of a million
CASED = 0.01  # of a vocabulary's words with capitals, from which on it is taken for a cased one; BERT's have 0 and 0.4


@registry.register_processor("bert_tokenizer")
class WordPieceTokenizer:
    """BERT's WordPiece tokenizer; texts longer than max_length are cut and counted."""

    Config = WordPieceTokenizerConfig

    def __init__(self, config: WordPieceTokenizerConfig):
        self.config = config
        self._tokenizer = None if config.vocabulary == "train" else _read(config)
        self._vocab_size: int | None = None  # once it is asked for

    @property
    def max_length(self) -> int:
        """Tokens; longer texts are cut."""
        return self.config.max_length

    @property
    def shortest_cut(self) -> int:
        """Bytes: a word piece takes one or more, so a text of fewer than max_length has room, [CLS] and [SEP] counted."""
        return self.config.max_length - 1

    @property
    def needs_fit(self) -> bool:
        """True until a vocabulary is trained (`fit`) or loaded."""
        return self._tokenizer is None

    def fit(self, texts: Iterable[str]) -> None:
        """Learn a WordPiece vocabulary: every character, then pieces merged as long as two neighbours occur twice.

        So of a small vocabulary every word that occurs twice is one piece, and of a large one the rare words are made of
        pieces, never of [UNK]. The same texts give the same vocabulary, in whatever process and order.
        """
        tokenizer = _empty(self.config.lowercase, WordPiece(unk_token="[UNK]"))
        written: Counter[str] = Counter()  # as in the texts, so that each is normalised once
        for text in texts:
            written.update(text.split())
        counts: Counter[str] = Counter()
        for word, count in written.items():
            for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(word)):
                counts[piece] += count
        tokenizer.model = WordPiece(_learn_pieces(counts, self.config.vocab_size), unk_token="[UNK]")
        self._tokenizer, self._vocab_size = _with_template(tokenizer), None

    def __call__(self, text: str) -> tuple[list[int], bool]:
        """Token ids with [CLS] and [SEP], at most max_length, and whether the text was cut."""
        ids = self._fitted.encode(text).ids
        if len(ids) <= self.config.max_length:
            return ids, False
        return [*ids[: self.config.max_length - 1], ids[-1]], True

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """[CLS], each word as it is written and [SEP], with the places of their tokens; of a word that is cut those that are
        left (interfaces.TextProcessor)."""
        encoding = self._fitted.encode(text)
        last = len(encoding.ids) - 1
        kept = [*range(min(last, self.config.max_length - 1)), last]
        found: list[tuple[str, list[int]]] = []
        former: int | None = None
        for place, index in enumerate(kept):
            word, (start, end) = encoding.word_ids[index], encoding.offsets[index]
            if word is None:  # [CLS] and [SEP], which no text has
                found.append((encoding.tokens[index], [place]))
            elif word == former:
                found[-1] = (found[-1][0] + text[start:end], [*found[-1][1], place])
            else:
                found.append((text[start:end], [place]))
            former = word
        return found

    def count_cut(self, texts: Iterable[str]) -> int:
        """How many of the texts `__call__` would cut. A text has the pieces of its words, and a word is tokenized once."""
        if not _has_berts_words(self._fitted):
            return sum(self(text)[1] for text in texts)
        pieces: dict[str, int] = {}
        cut, room = 0, self.config.max_length - 2  # beside [CLS] and [SEP]
        for text in texts:
            if not text.isprintable():  # controls and spaces of other kinds, by which BERT does not part words as Python does
                cut += self(text)[1]
                continue
            count = 0
            for word in text.split():
                if word not in pieces:
                    pieces[word] = len(self._fitted.encode(word, add_special_tokens=False).ids)
                count += pieces[word]
            cut += count > room
        return cut

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: a file's words may be fewer than its lines (duplicates, blank lines). Raises UserError
        for one that no vocabulary has."""
        if self._vocab_size is None:
            word, largest = max(self._fitted.get_vocab().items(), key=lambda entry: entry[1])
            if largest >= MOST_IDS:
                given = f"{registry.key_of(self.config, 'vocabulary')}={self.config.vocabulary!r}"
                raise UserError(
                    f"{given}: {word!r:.80} has the id {largest:,}; ids are rows of the word embeddings, "
                    f"and at most {MOST_IDS:,} are taken"
                )
            self._vocab_size = largest + 1
        return self._vocab_size

    @property
    def pad_token_id(self) -> int:
        return self._id("[PAD]")

    @property
    def mask_token_id(self) -> int:
        return self._id("[MASK]")

    def pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """V bool each: which entries of the vocabulary are words or pieces (not special), and which continue a word."""
        special = {*SPECIAL} - {"[UNK]"}  # an unknown word is still a word
        is_word_V, is_inside_V = np.zeros(self.vocab_size, dtype=bool), np.zeros(self.vocab_size, dtype=bool)
        for name, number in self._fitted.get_vocab().items():  # an id without a word is none of both
            is_word_V[number], is_inside_V[number] = name not in special, name.startswith("##")
        return is_word_V, is_inside_V

    def decode(self, ids: list[int]) -> str:
        return self._fitted.decode(ids)

    def portable(self) -> WordPieceTokenizerConfig:
        """The options where the vocabulary comes from a checkpoint (interfaces.Portable)."""
        return replace(self.config, vocabulary="train")

    def save_pretrained(self, folder: Path) -> dict[str, str]:
        """tokenizer.json, as transformers' AutoTokenizer reads it (interfaces.TextProcessor)."""
        self.for_transformers().save_pretrained(folder)
        return {"vocabulary": str(folder / "tokenizer.json")}

    def for_transformers(self) -> Any:
        """A copy as transformers' tokenizer, which cuts texts where this one does."""
        from transformers import PreTrainedTokenizerFast

        names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
        return PreTrainedTokenizerFast(tokenizer_object=self._fitted, **names, model_max_length=self.config.max_length)

    def state_dict(self) -> dict[str, Any]:
        return {"tokenizer": self._fitted.to_str()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a checkpoint's vocabulary, which its word embeddings belong to."""
        self._tokenizer, self._vocab_size = Tokenizer.from_str(state["tokenizer"]), None

    @property
    def _fitted(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RuntimeError("this tokenizer has no vocabulary yet: fit comes first")
        return self._tokenizer

    def _id(self, token: str) -> int:
        number = self._fitted.token_to_id(token)
        if number is None:
            raise LookupError(f"the vocabulary has no {token}")
        return number


def _learn_pieces(counts: Counter[str], vocab_size: int) -> dict[str, int]:
    """Pieces and their numbers from words and how often they occur, by tokenizers' trainer.

    It breaks ties by number, and numbers the continuations (##a) as its hash tables happen to list the words: other ones in
    each process. Given as special tokens, which it numbers in their order, they are the same everywhere.
    """
    characters = sorted({character for word in counts for character in word})
    first = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(vocab_size, len(first)), min_frequency=2, special_tokens=first, show_progress=False
    )
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # it warns in every process that is forked after it has used threads, as data-loader workers are
    with variable("TOKENIZERS_PARALLELISM", "false"):
        tokenizer.train_from_iterator((" ".join([word] * count) for word, count in counts.items()), trainer)
    return tokenizer.get_vocab()


def _empty(lowercase: bool, model: WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _has_berts_words(tokenizer: Tokenizer) -> bool:
    """Whether texts are parted at spaces before all else, so that no piece reaches over one; a folder can hold others."""
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and not any(" " in token.content for token in added)
    )


def _with_template(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(SPECIAL)  # known as special: left out by decode
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _read(config: WordPieceTokenizerConfig) -> Tokenizer:
    folder, key = Path(config.vocabulary), registry.key_of(config, "vocabulary")
    if (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file():
        tokenizer = _read_folder(folder, config, key)
    elif folder.is_dir():
        raise UserError(f"{key}={config.vocabulary!r}: the folder holds neither tokenizer.json nor vocab.txt")
    elif folder.is_file():
        raise UserError(f"{key}={config.vocabulary!r}: is a file; name the folder that holds it as tokenizer.json or vocab.txt")
    else:
        try:
            with hub.asked():
                tokenizer = Tokenizer.from_pretrained(config.vocabulary)
        except Exception as error:  # tokenizers raises plain Exception
            raise UserError(
                f"{key}={config.vocabulary!r}: no folder of this name here, and not available from the hub "
                f"({hub.reason(error)}); give a downloaded folder, or train"
            ) from error
    missing = [token for token in SPECIAL if tokenizer.token_to_id(token) is None]
    if missing:
        raise UserError(f"{key}={config.vocabulary!r}: has no {', '.join(missing)}; it is not a BERT vocabulary")
    tokenizer.no_padding()  # batches are padded to their longest text, and cutting is counted here
    tokenizer.no_truncation()
    return _with_template(tokenizer)


def _read_folder(folder: Path, config: WordPieceTokenizerConfig, key: str) -> Tokenizer:
    """The tokenizer.json of a folder, else its vocab.txt: one word a line, its id the line's number from 0, as transformers
    reads it. Raises UserError with `key` and the file."""
    path = folder / "tokenizer.json"
    path = path if path.is_file() else folder / "vocab.txt"
    try:
        if told := what_else(path):
            raise ValueError(told)
        text = path.read_text(encoding="utf-8-sig")
        if path.name == "tokenizer.json":
            return Tokenizer.from_str(text)
        words = [line.rstrip() for line in text.split("\n")]
        vocabulary = {word: number for number, word in enumerate(words) if word}
        tokenizer = _empty(config.lowercase, WordPiece(vocabulary, unk_token="[UNK]"))
    except Exception as error:  # tokenizers raises plain Exception
        reason = str(error) if isinstance(error, ValueError) else f"cannot be read ({error})"
        raise UserError(f"{key}={config.vocabulary!r}: {path.name} {reason}; fetch the folder again") from error
    _tell_other_case(vocabulary, config, key)
    return tokenizer


def _tell_other_case(vocabulary: Iterable[str], config: WordPieceTokenizerConfig, key: str) -> None:
    """Warn of a cased vocabulary without its capitals, and of an uncased one whose texts keep theirs (each such word [UNK])."""
    words = [word for word in vocabulary if not (word.startswith("[") and word.endswith("]"))]
    cased = [word for word in words if word != word.lower()]
    option, source = key.replace("vocabulary", "lowercase"), f"{key}={config.vocabulary!r}"
    if config.lowercase and len(cased) > CASED * len(words):
        logger.warning(
            "%s: %s of its %s words have capitals (such as %r), which %s=true leaves no text; is false meant?",
            *(source, f"{len(cased):,}", f"{len(words):,}", cased[0], option),
        )
    elif not config.lowercase and not cased and any(word != word.upper() for word in words):
        logger.warning("%s: no word of it has a capital, so every word that has one becomes [UNK]; set %s=true", source, option)
