"""The native model under transformers' base class: one class for each task, all of them the same few lines around it.

R texts, L tokens, I images, N of them to each text, Q = R·N sequences, S words and pixels of a sequence, D hidden size, V
pieces of the vocabulary, A answers. What goes in is what PixelBertProcessor gives; the weights are the native model's, their
names below `pixelbert.`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import ModelOutput as TransformersOutput

from pixelbert_plugin import registry
from pixelbert_plugin.huggingface.configuration import PixelBertConfig
from pixelbert_plugin.models.heads import MaskedLanguageHead
from pixelbert_plugin.models.inputs import batch_of
from pixelbert_plugin.models.pixelbert import PixelBert
from pixelbert_plugin.tasks.nlvr2 import Nlvr2Task
from pixelbert_plugin.tasks.pretrain import weighted_cross_entropy
from pixelbert_plugin.tasks.retrieval import RetrievalTask
from pixelbert_plugin.tasks.vqa import VqaTask
from pixelbert_plugin.types import Batch, ModelOutput

IGNORED = -100  # of labels: nothing is known here
ALIGNED = 64  # bytes: where torch puts what it makes


@dataclass
class PixelBertModelOutput(TransformersOutput):
    """What PixelBertModel returns; the dimensions are the module's."""

    last_hidden_state: Tensor | None = None  # Q S D, words first
    pooler_output: Tensor | None = None  # Q D, what heads on [CLS] read
    attention_mask: Tensor | None = None  # Q S bool, False at padding of text and images
    hidden_states: tuple[Tensor, ...] | None = None  # Q S D each, where asked for: what goes into the layers, and the last
    attentions: tuple[Tensor, ...] | None = None  # per layer Q heads S S, where asked for


@dataclass
class PixelBertForPreTrainingOutput(TransformersOutput):
    """What PixelBertForPreTraining returns; None of what the task has no head for."""

    loss: Tensor | None = None  # scalar, where labels are given
    prediction_logits: Tensor | None = None  # R L V; where mlm_labels are given M V, at the M words that have one
    itm_logits: Tensor | None = None  # R 2, the second for "belongs to the image"
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class Inputs(NamedTuple):
    """What all models here take; see `models.inputs.batch_of`."""

    input_ids: Tensor | None
    attention_mask: Tensor | None
    pixel_values: Tensor | None
    pixel_mask: Tensor | None
    image_index: Tensor | None
    image_seeds: Tensor | None


class PixelBertPreTrainedModel(PreTrainedModel):
    """Builds the native model from the configuration, and has what all classes here share."""

    config: PixelBertConfig
    config_class = PixelBertConfig
    base_model_prefix = "pixelbert"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    accepts_loss_kwargs = False  # of Trainer: the loss is a batch's mean, to be averaged over accumulated ones
    _supports_sdpa = True
    images_per_text: int | None = 1  # None: any

    def __init__(self, config: PixelBertConfig):
        super().__init__(config)
        sizes: dict[str, Any] = {"vocab_size": config.vocab_size, "pad_token_id": config.pad_token_id}
        sizes["heads"] = self.native_heads(config)
        options = config.native_model_options()
        self.pixelbert: PixelBert = registry.build("model", config.model_type, options, "config.model_options", **sizes)
        if not any(parameter.is_meta for parameter in self.pixelbert.parameters()):
            for module in self.pixelbert.modules():  # they have their first values, which post_init would draw once more
                cast(Any, module)._is_hf_initialized = True
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """As transformers' own. Weights lie in memory as the native model's do: where they are parts of a mapped file, at any
        address, kernels add them up in another order, and the last digit of the outputs is another."""
        found = super().from_pretrained(*args, **options)
        model = found[0] if isinstance(found, tuple) else found  # with output_loading_info
        for value in (*model.parameters(), *model.buffers()):
            if value.data_ptr() % ALIGNED:
                value.data = value.data.clone()
        return found

    def native_heads(self, config: PixelBertConfig) -> dict[str, int]:
        """The native model's heads and their numbers of outputs."""
        return {}

    def get_input_embeddings(self) -> nn.Module:
        return self.pixelbert.text_encoder.bert.embeddings.word_embeddings

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Of what a folder lacks, such as another task's head: as the native model draws it."""
        std = self.pixelbert.text_encoder.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, MaskedLanguageHead):
            init.zeros_(module.bias)
        elif isinstance(module, PixelBert):
            for parameter in module.parameters(recurse=False):
                init.normal_(parameter, std=std)
        else:
            super()._init_weights(module)

    def _run(
        self,
        inputs: Inputs,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        mlm_positions_M: Tensor | None = None,
    ) -> tuple[ModelOutput, Batch, dict[str, Any]]:
        """What the native model gives for these inputs of `forward`, its batch, and what was asked for besides."""
        batch = self._batch(inputs)
        if mlm_positions_M is not None:
            batch.targets["mlm_positions"] = mlm_positions_M
        is_recorded = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        with_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        recorded: list[Tensor] = []
        with self._recording(recorded if is_recorded else None):
            output = self.pixelbert(batch, return_attentions=bool(with_attentions))
        hidden_states = tuple(recorded) if is_recorded else None
        return output, batch, {"hidden_states": hidden_states, "attentions": output.attentions}

    def _batch(self, inputs: Inputs) -> Batch:
        input_ids, attention_mask, pixel_values, pixel_mask, image_index, image_seeds = inputs
        if input_ids is None or pixel_values is None:
            missing = "input_ids" if input_ids is None else "pixel_values"
            raise ValueError(f"{missing}: is missing; PixelBertProcessor gives what the model takes")
        if image_seeds is None and self.training and self.pixelbert.config.num_sampled_pixels is not None:
            images = len(pixel_values) if pixel_values.dim() == 4 else pixel_values.shape[0] * pixel_values.shape[1]
            image_seeds = torch.randint(2**62, (images,)).to(pixel_values.device)
        pixel_values = pixel_values.to(self.dtype)  # of weights that were read as half types
        batch = batch_of(input_ids, attention_mask, pixel_values, pixel_mask, image_index, image_seeds)
        if (wanted := self.images_per_text) not in (None, (found := batch.image_index.shape[1])):
            raise ValueError(f"pixel_values: {found} images to a text, where {type(self).__name__} takes {wanted}")
        return batch

    @contextmanager
    def _recording(self, recorded: list[Tensor] | None) -> Iterator[None]:
        """While this lasts, what goes into the transformer's layers and what comes out of the last is added to `recorded`."""
        if recorded is None:
            yield
            return
        layers = self.pixelbert.text_encoder.shard_units()
        hooks = [layer.register_forward_pre_hook(lambda _, given: recorded.append(given[0])) for layer in layers]
        hooks += [layers[-1].register_forward_hook(lambda _, __, made: recorded.append(made[0]))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _as_asked(self, output: TransformersOutput, return_dict: bool | None) -> Any:
        is_dict = self.config.return_dict if return_dict is None else return_dict
        return output if is_dict else output.to_tuple()


def _mean(parts: dict[str, Tensor], counts: dict[str, Tensor]) -> Tensor:
    """The loss of a batch as the native training step has it: each part's sum by its number of terms, then added up."""
    return cast(Tensor, sum(value / counts[part].float().clamp(min=1) for part, value in parts.items()))


class PixelBertModel(PixelBertPreTrainedModel):
    """Pixel-BERT without heads: hidden states of words and pixels."""

    images_per_text = None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        image_seeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> PixelBertModelOutput | tuple[Any, ...]:
        """See `models.inputs.batch_of` for the inputs. `token_type_ids` are taken and not used: all words are of one type."""
        inputs = Inputs(input_ids, attention_mask, pixel_values, pixel_mask, image_index, image_seeds)
        output, batch, asked = self._run(inputs, output_attentions, output_hidden_states)
        words_QLD, pixels_QKD = cast(Tensor, output.text), cast(Tensor, output.pixels)
        text_mask_QL = batch.text_mask.repeat_interleave(batch.image_index.shape[1], dim=0)
        pooler = self.pixelbert.pooler
        made = PixelBertModelOutput(
            last_hidden_state=torch.cat([words_QLD, pixels_QKD], dim=1),
            pooler_output=words_QLD[:, 0] if pooler is None else pooler(words_QLD[:, 0]).tanh(),
            attention_mask=torch.cat([text_mask_QL, output.pixel_mask], dim=1),
            **asked,
        )
        return self._as_asked(made, return_dict)


class PixelBertForPreTraining(PixelBertPreTrainedModel):
    """Masked language modelling and image-text matching, as far as the task's options have them."""

    def native_heads(self, config: PixelBertConfig) -> dict[str, int]:
        options = config.native_task_options("pretrain")
        return {name: size for name, size in (("mlm", config.vocab_size), ("itm", 2)) if getattr(options, name)}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        image_seeds: Tensor | None = None,
        mlm_labels: Tensor | None = None,
        itm_labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> PixelBertForPreTrainingOutput | tuple[Any, ...]:
        """`mlm_labels`: R L int64, the pieces that stood at masked words, else -100, and -100 throughout a text of another
        image. `itm_labels`: R int64, 1 for a text of the image, 0 for another's. The loss is the sum of both means."""
        inputs = Inputs(input_ids, attention_mask, pixel_values, pixel_mask, image_index, image_seeds)
        heads, parts, counts = self.pixelbert.heads, {}, {}
        positions_M = None
        if "mlm" in heads and input_ids is not None:
            positions_M = torch.arange(input_ids.numel(), device=input_ids.device)
            if mlm_labels is not None:
                positions_M = positions_M[mlm_labels.flatten() != IGNORED]
        output, batch, asked = self._run(inputs, output_attentions, output_hidden_states, positions_M)
        predictions = output.logits.get("mlm")
        if predictions is not None and mlm_labels is not None:
            targets_M = mlm_labels.flatten()[positions_M]
            weights_M = torch.ones(len(targets_M), device=targets_M.device)
            parts["mlm"] = weighted_cross_entropy(predictions, targets_M, weights_M)
            counts["mlm"] = weights_M.sum()
        elif predictions is not None:
            predictions = predictions.unflatten(0, batch.input_ids.shape)
        if "itm" in heads and itm_labels is not None:
            parts["itm"] = weighted_cross_entropy(output.logits["itm"], itm_labels, batch.weights)
            counts["itm"] = batch.weights.sum()
        made = PixelBertForPreTrainingOutput(
            loss=_mean(parts, counts) if parts else None,
            prediction_logits=predictions,
            itm_logits=output.logits.get("itm"),
            **asked,
        )
        return self._as_asked(made, return_dict)


class _Classifier(PixelBertPreTrainedModel):
    """One head on [CLS], whose loss the native task has."""

    head: str

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        image_seeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """See `models.inputs.batch_of` for the inputs, and the class for `labels` and `logits`."""
        inputs = Inputs(input_ids, attention_mask, pixel_values, pixel_mask, image_index, image_seeds)
        output, batch, asked = self._run(inputs, output_attentions, output_hidden_states)
        loss = None
        if labels is not None:
            task, batch = self.native_task(), self._labelled(batch, labels)
            loss = _mean(task.loss(output, batch), task.counts(batch))
        made = SequenceClassifierOutput(loss=loss, logits=output.logits[self.head], **asked)
        return self._as_asked(made, return_dict)

    def native_task(self) -> Any:
        """The task whose loss it is."""
        raise NotImplementedError

    def _labelled(self, batch: Batch, labels: Tensor) -> Batch:
        """The batch as the task's loss takes it."""
        return replace(batch, targets={**batch.targets, self.head: labels})


class PixelBertForQuestionAnswering(_Classifier):
    """Visual question answering. `labels`: R A float, how right each answer is, in 0…1; `logits`: R A, whose answers are
    `config.id2label`."""

    head = "answers"

    def native_heads(self, config: PixelBertConfig) -> dict[str, int]:
        weight = config.native_task_options("vqa").image_answers_weight
        answers = config.num_labels or 0
        return {"answers": answers} | ({"image_answers": answers} if weight else {})

    def native_task(self) -> VqaTask:
        options = self.config.native_task_options("vqa")
        return VqaTask(options, {"answers": range(self.config.num_labels or 0)})  # a loss needs the answers' number alone


class PixelBertForImagesAndTextClassification(_Classifier):
    """NLVR2: is a statement about two images true? `pixel_values`: R 2 3 H W; `labels`: R int64, 1 for a true statement, -100
    where it is not known; `logits`: R 2, the second for "true"."""

    head, images_per_text = "pair", 2

    def native_heads(self, config: PixelBertConfig) -> dict[str, int]:
        return Nlvr2Task({}).heads()

    def native_task(self) -> Nlvr2Task:
        return Nlvr2Task({})


class PixelBertForImageTextRetrieval(_Classifier):
    """Does a text belong to an image? `logits`: R 2, the second for "yes"; their difference ranks (`scores`).

    `labels`: R int64, 1 at each image's own text, then 0 at its negatives, as many for each image: the loss is the native
    task's, the softmax of the true text among an image's, with gradient from the hardest negatives alone.
    """

    head = "itm"

    def native_heads(self, config: PixelBertConfig) -> dict[str, int]:
        return self._task(config).heads()

    def native_task(self) -> RetrievalTask:
        return self._task(self.config)

    def scores(self, logits: Tensor) -> Tensor:
        """R float32, higher for better matches."""
        return self.native_task().scores({"itm": logits})

    @staticmethod
    def _task(config: PixelBertConfig) -> RetrievalTask:
        return RetrievalTask(config.native_task_options("retrieval"), {})

    def _labelled(self, batch: Batch, labels: Tensor) -> Batch:
        labels = labels.flatten()
        images = int(labels.sum())
        is_first = labels.view(images, -1) if images and not len(labels) % images else labels[None, :0]
        if not is_first.numel() or not bool((is_first.argmax(1) == 0).all() & (is_first.sum(1) == 1).all()):
            raise ValueError("labels: 1 at each image's own text, then 0 at its negatives, as many for each image")
        hardest, negatives = self.config.native_task_options("retrieval").num_hardest, is_first.shape[1] - 1
        if negatives < hardest:
            raise ValueError(f"labels: {negatives} negatives to an image, fewer than task_options.num_hardest={hardest}")
        return replace(batch, sample_ids=list(range(images)), weights=batch.weights[:images])
