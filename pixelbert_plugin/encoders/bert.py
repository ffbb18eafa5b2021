"""Text encoder: BERT's embeddings and the transformer that words and pixels share, from transformers' BertModel.

B sequences, L tokens, S tokens and pixels, D hidden size. `embed`: ids_BL → BLD; `forward`: hidden_BSD, mask_BS → BSD.
"""

import copy
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import hub
from pixelbert_plugin.checkpoint.weights import one_line, report_names, require_shards, write_weights
from pixelbert_plugin.encoders.options import ARCHITECTURE, BertTextEncoderConfig
from pixelbert_plugin.encoders.row_dropout import RowDraws, RowDropout
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.precision.apex import nvidia as nvidia_apex
from pixelbert_plugin.system.foreign import what_else
from pixelbert_plugin.types import CompileUnit

if TYPE_CHECKING:
    from transformers import BertModel

logger = logging.getLogger(__name__)

ZIP = b"PK\x03\x04"  # how torch's own .bin files begin
MLM = "cls.predictions."  # of a checkpoint's names: those of the masked-language head
MLM_NAMES = {  # what follows it, and our names (models/heads.py); the output weights are the word embeddings
    "bias": "bias",
    "transform.dense.weight": "transform.0.weight",
    "transform.dense.bias": "transform.0.bias",
    "transform.LayerNorm.weight": "transform.2.weight",
    "transform.LayerNorm.bias": "transform.2.bias",
}
FROM_WEIGHTS = (*ARCHITECTURE, "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps")


@registry.register_encoder("bert")
class BertTextEncoder(nn.Module):
    """transformers' BertModel: word and position embeddings, and one encoder over words and pixels (SDPA attention)."""

    Config = BertTextEncoderConfig

    def __init__(self, config: BertTextEncoderConfig, vocab_size: int, pad_token_id: int = 0):
        super().__init__()
        self.config = config
        import transformers

        from pixelbert_plugin.encoders.bert_layer import adapt

        chosen = {name: value for name in FROM_WEIGHTS if (value := getattr(config, name)) is not None}
        if (act := config.hidden_act) is not None and act not in transformers.activations.ACT2FN:
            raise ValueError(f"hidden_act: {act!r}: transformers has {', '.join(transformers.activations.ACT2FN)}")
        dropout: dict[str, Any] = {
            "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.attention_dropout,
            "attn_implementation": "sdpa",
        }
        if config.weights is None:
            architecture = transformers.BertConfig(
                vocab_size=vocab_size,
                pad_token_id=pad_token_id,
                initializer_range=config.initializer_range,
                **{**ARCHITECTURE, **chosen},
                **dropout,
            )
            if architecture.hidden_size % architecture.num_attention_heads:
                heads, hidden = architecture.num_attention_heads, architecture.hidden_size
                raise ValueError(f"num_attention_heads: {heads} does not divide hidden_size {hidden}")
            self.bert: BertModel = transformers.BertModel(architecture, add_pooling_layer=False)
            self.mlm_head: dict[str, Tensor] = {}
        else:
            # mlm_head: the pre-trained weights of models/heads.py's MaskedLanguageHead, by its names; {} where there are none
            self.bert, self.mlm_head = _load(config.weights, chosen, vocab_size, dropout)
        self.draws = RowDraws()
        _repeat_dropout(self.bert.encoder, self.draws)
        for layer in self.bert.encoder.layer:
            adapt(layer, self.draws)
        if config.layer_norm == "apex":
            _fuse_layer_norms(self.bert, registry.key_of(config, "layer_norm"))
        self.hidden_size: int = self.bert.config.hidden_size
        self.initializer_range: float = self.bert.config.initializer_range

    def portable(self) -> BertTextEncoderConfig:
        """The options without `weights`, whose sizes are filled in (interfaces.Portable)."""
        found = {name: getattr(self.bert.config, name) for name in (*FROM_WEIGHTS, "initializer_range")}
        return replace(self.config, weights=None, **found)

    @property
    def word_embeddings(self) -> nn.Parameter:
        """V D, shared with the masked-language head."""
        words: nn.Parameter = self.bert.embeddings.word_embeddings.weight  # type: ignore[assignment]  # nn.Embedding says Tensor
        return words

    def shard_units(self) -> list[nn.Module]:
        """The transformer's layers."""
        return list(self.bert.encoder.layer)

    def compile_units(self) -> list[CompileUnit]:
        """The same, which are alike: they are compiled once, and the last one once more, for where heads read."""
        from pixelbert_plugin.encoders.bert_layer import compile_unit

        return [compile_unit(layer) for layer in self.bert.encoder.layer]

    def pretrained_heads(self) -> dict[str, dict[str, Tensor]]:
        return {"mlm": self.mlm_head} if self.mlm_head else {}

    def save_pretrained(self, folder: Path, heads: Mapping[str, nn.Module]) -> dict[str, str]:
        """A folder that transformers reads: BertForMaskedLM's where the model has that head, else BertModel's."""
        config, found = copy.deepcopy(self.bert.config), {"text_encoder": str(folder / "model.safetensors")}
        state = {f"bert.{name}": value for name, value in self.bert.state_dict().items()}
        config.architectures = ["BertModel"]
        if "mlm" in heads and config.hidden_act == "gelu":
            head = heads["mlm"].state_dict()
            state |= {f"{MLM}{theirs}": head[ours] for theirs, ours in MLM_NAMES.items()}
            config.architectures, config.tie_word_embeddings = ["BertForMaskedLM"], True
        elif "mlm" in heads:
            found["mlm head"] = f"not written: transformers' would have {config.hidden_act}, where this one has gelu"
        write_weights(folder / "model.safetensors", state)
        config.save_pretrained(folder)
        return found

    def embed(self, input_ids_BL: Tensor) -> Tensor:
        """Word + position embedding, layer norm, dropout. Token type 0 throughout: the paper omits s_w."""
        longest = self.bert.config.max_position_embeddings
        if input_ids_BL.shape[1] > longest:
            key = registry.key_of(self.config, "max_position_embeddings")
            raise UserError(
                f"processors.text.params.max_length: a text of {input_ids_BL.shape[1]} tokens is longer than the "
                f"{longest} positions of the text encoder; lower max_length or raise {key}"
            )
        return self.bert.embeddings(input_ids=input_ids_BL)

    def forward(
        self, hidden_BSD: Tensor, mask_BS: Tensor, return_attentions: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Run the transformer; positions where mask_BS is False are not attended to."""
        hidden_BSD, attentions = self._run(hidden_BSD, mask_BS, is_recorded=return_attentions)
        return hidden_BSD, attentions if return_attentions else None

    def read(self, hidden_BSD: Tensor, mask_BS: Tensor, positions_BJ: Tensor) -> Tensor:
        """B J D: the last hidden states at these positions. The last layer computes no others."""
        return self._run(hidden_BSD, mask_BS, positions_BJ)[0]

    def _run(
        self, hidden_BSD: Tensor, mask_BS: Tensor, positions_BJ: Tensor | None = None, is_recorded: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        from pixelbert_plugin.encoders.bert_layer import Pass

        # SDPA never forms the weights; but under autocast its gradient takes a CPU four times as long as plain products have,
        # and in training a pass without gradient is computed like those with one
        is_slow = (
            hidden_BSD.device.type == "cpu" and torch.is_autocast_enabled("cpu") and (self.training or torch.is_grad_enabled())
        )
        is_by_weights = is_recorded or is_slow
        attention: Literal["sdpa", "weights", "rows"] = "weights" if is_by_weights else "sdpa"
        if self.training and self.draws.is_on and self.config.attention_dropout and not is_recorded:
            attention = "rows"
        # bool suits SDPA in any type; Apex O1 casts the queries, but not a float mask
        call = Pass(mask_B11S=mask_BS[:, None, None], attention=attention, drawing=self.draws.drawing)
        *layers, last = self.shard_units()
        recorded = []
        for layer in layers:
            hidden_BSD, weights = layer(hidden_BSD, call=call)
            recorded.append(weights)
        hidden_BSD, weights = last(hidden_BSD, call=call, positions_BJ=positions_BJ)
        return hidden_BSD, (*recorded, weights)


def _repeat_dropout(encoder: nn.Module, draws: RowDraws) -> None:
    """Let all dropouts of the transformer's layers draw by `draws` where that is on."""
    for parent in encoder.modules():
        dropout = parent._modules.get("dropout")
        if isinstance(dropout, nn.Dropout) and "query" in parent._modules:  # self-attention, which gives `attend` its p alone
            object.__setattr__(parent, "draws", draws)
        elif isinstance(dropout, nn.Dropout):
            parent.dropout = RowDropout(dropout.p, draws)


def _fuse_layer_norms(bert: nn.Module, key: str) -> None:
    """Apex's FusedLayerNorm, of the same names and weights, in place of every layer norm; a warning where it is not usable."""
    reason = nvidia_apex.why_no_kernels("fused_layer_norm_cuda", "cuda" if torch.cuda.is_available() else "cpu")
    if reason is not None:
        logger.warning("%s=apex: %s; torch's layer norm is used", key, reason)
        return
    from apex.normalization import FusedLayerNorm

    for parent in list(bert.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.LayerNorm:
                fused = FusedLayerNorm(norm.normalized_shape, eps=norm.eps)
                fused.load_state_dict(norm.state_dict())
                setattr(parent, name, fused)


def _load(
    weights: str, chosen: dict[str, int], vocab_size: int, dropout: dict[str, Any]
) -> tuple["BertModel", dict[str, Tensor]]:
    """A pre-trained BertModel and its masked-language head's weights; names that do not fit are logged."""
    import transformers

    try:
        if not weights or os.path.isfile(weights):
            raise ValueError("name the folder that holds config.json and the weights")
        if os.path.isdir(weights) and not os.path.isfile(os.path.join(weights, "config.json")):
            raise ValueError("the folder holds no config.json")
        require_shards(Path(weights))
        with _quiet_transformers(), nullcontext() if os.path.isdir(weights) else hub.asked():
            architecture = transformers.BertConfig.from_pretrained(weights)
            loaded: Any = transformers.BertForMaskedLM.from_pretrained(
                weights, output_loading_info=True, dtype=torch.float32, **dropout
            )
            model, info = loaded  # a pair, by output_loading_info
    except RunError:
        raise
    except Exception as error:  # a damaged file may fail anywhere in transformers
        reason = one_line(error) if not weights or os.path.exists(weights) else hub.reason(error)
        reason = next((f"{file.name} {told}" for file in _files(weights) if (told := what_else(file, but=(ZIP,)))), reason)
        raise ValueError(
            f"weights: {weights[:300]!r}: not a folder or hub name that can be read here ({reason}); "
            "without network give the folder of a downloaded checkpoint"
        ) from error
    if architecture.model_type != "bert":
        raise ValueError(f"weights: {weights!r} is a {architecture.model_type} checkpoint, not BERT's")
    for name, value in chosen.items():
        if getattr(architecture, name) != value:
            raise ValueError(f"{name}: {value}, but {weights!r} has {getattr(architecture, name)}; leave it out")
    if model.config.vocab_size != vocab_size:
        raise UserError(
            f"processors.text: its vocabulary has {vocab_size} entries, but {weights!r} has {model.config.vocab_size}; "
            f"set processors.text.params.vocabulary={weights}"
        )
    report_names(
        f"text_encoder weights {weights}",
        {
            "left as initialised, not in the file": sorted(name for name in info["missing_keys"] if not name.startswith(MLM)),
            "in the file but not in the model": sorted(info["unexpected_keys"]),
            "of another shape, not loaded": sorted(map(str, info["mismatched_keys"])),
        },
    )
    return model.bert, _mlm_head(model, weights, [name for name in info["missing_keys"] if name.startswith(MLM)])


def _files(weights: str) -> list[Path]:
    """Of a folder of weights, those that are read."""
    return [file for suffix in (".json", ".safetensors", ".bin") for file in sorted(Path(weights or "-").glob(f"*{suffix}"))]


def _mlm_head(model: Any, weights: str, missing: list[str]) -> dict[str, Tensor]:
    """The masked-language head of a BertForMaskedLM under our names; {}, and the reason logged, where ours cannot take it."""
    predictions, words = model.cls.predictions, model.bert.embeddings.word_embeddings
    reason = None
    if missing:
        reason = "the file has none"
    elif model.config.hidden_act != "gelu":
        reason = f"its activation is {model.config.hidden_act!r}, not 'gelu'"
    elif not torch.equal(predictions.decoder.weight, words.weight):
        reason = "its output weights are not the word embeddings"
    if reason is not None:
        logger.info("text_encoder weights %s: no masked-language head is taken: %s", weights, reason)
        return {}
    state = predictions.state_dict()
    return {ours: state[theirs] for theirs, ours in MLM_NAMES.items()}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without transformers' own table of names and its bars: `report_names` says what does not fit."""
    from transformers.utils import logging as transformers_logging

    usual, has_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(usual)
        if has_bars:
            transformers_logging.enable_progress_bar()
