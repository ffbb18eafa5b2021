"""Text processor: WordPiece with [CLS] and [SEP], from the hub, a folder, or learned from the train split."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


@registry.register_processor("bert_tokenizer")
class WordPieceTokenizer:
    """BERT's WordPiece tokenizer; texts longer than max_length are cut and counted."""

    Config = WordPieceTokenizerConfig

    def __init__(self, config: WordPieceTokenizerConfig):
        self.config = config
        self._tokenizer = None if config.vocabulary == "train" else _read(config)

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
        self._tokenizer = _with_template(tokenizer)

    def __call__(self, text: str) -> tuple[list[int], bool]:
        """Token ids with [CLS] and [SEP], at most max_length, and whether the text was cut."""
        ids = self._fitted.encode(text).ids
        if len(ids) <= self.config.max_length:
            return ids, False
        return [*ids[: self.config.max_length - 1], ids[-1]], True

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
        return self._fitted.get_vocab_size()

    @property
    def pad_token_id(self) -> int:
        return self._id("[PAD]")

    @property
    def mask_token_id(self) -> int:
        return self._id("[MASK]")

    def pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """V bool each: which entries of the vocabulary are words or pieces (not special), and which continue a word."""
        numbers = self._fitted.get_vocab()
        names = sorted(numbers, key=numbers.__getitem__)
        special = {*SPECIAL} - {"[UNK]"}  # an unknown word is still a word
        return np.array([name not in special for name in names]), np.array([name.startswith("##") for name in names])

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
        self._tokenizer = Tokenizer.from_str(state["tokenizer"])

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
    with _one_thread():
        tokenizer.train_from_iterator((" ".join([word] * count) for word, count in counts.items()), trainer)
    return tokenizer.get_vocab()


@contextmanager
def _one_thread() -> Iterator[None]:
    """tokenizers warns in every process that is forked after it has used threads, as data-loader workers are."""
    name = "TOKENIZERS_PARALLELISM"
    usual = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if usual is None:
            del os.environ[name]
        else:
            os.environ[name] = usual


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
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.txt").is_file():
            vocab = WordPiece.read_file(str(folder / "vocab.txt"))
            tokenizer = _empty(config.lowercase, WordPiece(vocab, unk_token="[UNK]"))
        elif folder.is_dir():
            raise UserError(f"{key}={config.vocabulary!r}: the folder holds neither tokenizer.json nor vocab.txt")
        elif folder.is_file():
            raise UserError(
                f"{key}={config.vocabulary!r}: is a file; name the folder that holds it as tokenizer.json or vocab.txt"
            )
        else:
            with hub.asked():
                tokenizer = Tokenizer.from_pretrained(config.vocabulary)
    except UserError:
        raise
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
