"""Parts of a run where their files are not: architectures without weights, vocabularies of the right size without words."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.vocabularies import build_processor, fit_answers, fit_text
from pixelbert_plugin.encoders.bert import FROM_WEIGHTS
from pixelbert_plugin.encoders.options import ARCHITECTURE, BertTextEncoderConfig, ResNetConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.answers import AnswerProcessor
from pixelbert_plugin.processors.options import SPECIAL, WordPieceTokenizerConfig
from pixelbert_plugin.registry.schema import Component, FilePath, type_hints

BERT_VOCABULARY = 30522  # entries of bert-base-uncased's
BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
Samples = Callable[[str], Mixture]  # of a split; raises UserError where they are not here
Assumptions = list[str]  # what was taken for granted, each in one line


def without_files(options: Any, assumed: Assumptions) -> Any:
    """A component's options, and those of the components in it, so that it is built of the same shape without its files."""
    if not is_dataclass(options) or isinstance(options, type):
        return options
    if isinstance(options, BertTextEncoderConfig) and options.weights is not None:
        sizes, said = _bert_sizes(options.weights)
        assumed += said
        options = replace(options, weights=None, **{name: value for name, value in sizes.items() if name in FROM_WEIGHTS})
    if isinstance(options, ResNetConfig) and options.norm == "sync":  # needs a GPU to be built; of the same size
        options = replace(options, norm="trainable")
    changes: dict[str, Any] = {}
    kind: Any = type(options)
    hints = type_hints(kind)
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Component):
            changes[field.name] = Component(value.type, without_files(value.params, assumed))
        elif field.default is None and value is not None and FilePath in get_args(hints[field.name]):
            changes[field.name] = None
    made = replace(options, **changes)
    registry.place.tell(made, registry.place_of(options))
    return made


def _bert_sizes(weights: str) -> tuple[dict[str, Any], Assumptions]:
    """The architecture that a name or folder of weights means, and what was assumed for want of its file."""
    found = _config_of(weights)
    if found is not None:
        return found, []
    sizes = BERT_LARGE if "large" in weights.lower() else ARCHITECTURE
    layers, width = sizes["num_hidden_layers"], sizes["hidden_size"]
    return dict(sizes), [f"{weights} is not at hand: {layers} layers of width {width}, as its name says or BERT-base has"]


def _config_of(weights: str) -> dict[str, Any] | None:
    """config.json of a folder, or of the hub's cache on this machine; nothing is downloaded."""
    path: Any = Path(weights) / "config.json"
    if not path.is_file():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            path = try_to_load_from_cache(weights, "config.json")
        except HFValidationError:  # a path, whose folder is not there
            return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8")) if isinstance(path, str | Path) else None
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and ARCHITECTURE.keys() <= content.keys() else None


def text_processor(config: RunConfig, samples: Samples, assumed: Assumptions) -> Any:
    """The text processor, its vocabulary read or learned where its files are here, else as large and without words."""
    params = config.processors.text.params
    if not isinstance(params, WordPieceTokenizerConfig):
        return build_processor(config.processors, "text")
    folder = Path(params.vocabulary)
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return build_processor(config.processors, "text")
    made = registry.build("processor", config.processors.text.type, replace(params, vocabulary="train"))
    if params.vocabulary != "train":
        size, why = BERT_VOCABULARY, f"{params.vocabulary} is not at hand"
    else:
        with suppress(UserError):
            fit_text(made, samples)
            return made
        size, why = params.vocab_size, "the most that processors.text.params.vocab_size lets train learn"
    assumed.append(f"a vocabulary of {size:,} entries: {why}")
    words = [*SPECIAL, *(f"word{number}" for number in range(size - len(SPECIAL)))]
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.load_state_dict({"tokenizer": tokenizer.to_str()})
    return made


def answer_processor(config: RunConfig, samples: Samples, number: int, assumed: Assumptions) -> Any:
    """The answer processor, its answers counted where the data are here, else so many."""
    made = build_processor(config.processors, "answers")
    if isinstance(made, AnswerProcessor) and made.needs_fit:
        with suppress(UserError):
            fit_answers(made, samples, is_training=True)
            return made
        assumed.append(f"{number:,} answers (answers=N for others)")
        names = [f"answer{index}" for index in range(number)]
        made.load_state_dict({"answers": names, "spellings": names})
    return made
