"""The contracts between the engine and its components: what each kind must have. Nothing else of a component is used.

A method marked abstract and an attribute without a value are required. All others are optional: what stands here is what a
component without them gets when it is registered, so that nobody asks whether they are there. Deriving a component from its
contract gives it the same, and lets an editor and mypy check it; it need not. `registry/contracts.py` holds a component
against its contract. Constructors: a component with a `Config` gets it first, then by name what the contract says.

B samples, R texts (B or, with negatives, a multiple), L tokens, J of them read, V vocabulary, I images, N images per text,
Q = R·N sequences, H W padded height and width, P pixels of the CNN's grid, K of them kept, C channels, D hidden size,
S = L + K, A answers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from pixelbert_plugin.data.images import ImageSource
    from pixelbert_plugin.encoders.row_dropout import RowDraws
    from pixelbert_plugin.types import (
        Batch,
        CompileUnit,
        ExplanationInput,
        ExplanationMap,
        ImageMemory,
        ModelOutput,
        PixelFeatures,
        Result,
        Sample,
        TrackedRun,
    )


class Portable(Protocol):
    """What a component is in checkpoints, which must be enough to build it again: `pixelbert_plugin.load`."""

    def portable(self) -> Any:
        """Its `Config` for being built again where weights and vocabularies come from a checkpoint: it names no file of them,
        and what was read from such files, as sizes, is filled in. Default: None, the options that it was built with."""
        return None


class Inferring(Protocol):
    """What can be made faster once training is over."""

    def prepare_inference(self) -> None:
        """Change it in place such that it computes the same up to rounding, in less time; it is trained and saved no more.
        Default: nothing changes."""


class Publishable(Protocol):
    """What can be written for the programs whose names it has."""

    def save_pretrained(self, folder: Path) -> dict[str, str]:
        """Write its weights into `folder`, in the names and the layout of torchvision, timm or transformers. Returns, by part,
        the file, or why there is none. Default: nothing is written."""
        return {}


Normalization: TypeAlias = tuple[Sequence[float], Sequence[float]]  # mean and std of red, green and blue in 0…1


class Compilable(Protocol):
    """What is made of blocks, each with weights of its own."""

    def shard_units(self) -> list[nn.Module]:
        """What FSDP shards one by one, and training.gradient_checkpointing computes again, such as the transformer's layers:
        what each gives depends on its arguments alone. Default: none."""
        return []

    def compile_units(self) -> list[CompileUnit]:
        """What training.compile compiles one by one. Default: the `forward` of each of `shard_units()`."""
        from pixelbert_plugin.types import CompileUnit

        return [CompileUnit(unit) for unit in self.shard_units()]


class Model(Compilable, Portable, Publishable, Inferring, Protocol):
    """`register_model`: an nn.Module, built with `config, vocab_size, pad_token_id, heads`.

    `heads`: by the name of each head that the task needs, how many outputs it has. Their parameters are named `heads.<name>.…`:
    a checkpoint's heads that another task does not need are known by that.
    """

    normalization: Normalization | None = None  # of the images that weights it has read were trained on; None: any
    takes_choose: bool = False  # whether forward also takes `choose`, a task's `chosen`: gradient for some rows alone
    grid_centres: tuple[float, float] | None = None  # an ImageEncoder's, of the pixels that the transformer gets
    gives_attentions: bool = False  # whether forward also takes `return_attentions`, with which output.attentions is there
    frozen_image_encoder: nn.Module | None = None  # an ImageEncoder in evaluation mode that no training changes; then batches
    # may have `features` in the place of images, which the model takes as the encoder's. None: it is trained, or there is none

    @abstractmethod
    def forward(self, batch: Batch) -> ModelOutput:
        """`logits` of every head, by name. `batch` is on the device, its images I 3 H W float32, padded with zeros."""

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """All parameters with their names in the model, by the key that `optimizer` has for them ("cnn", "transformer")."""


class MatchingModel(Model, Protocol):
    """A model for tasks that score all pairs (retrieval): what `forward` does in one go, in steps.

    Every image goes through `encode_images` once and every text through `embed_texts` once; the rest runs per pair.
    """

    @abstractmethod
    def encode_images(self, batch: Batch) -> ImageMemory:
        """The batch's images (I 3 H W float32, `image_sizes` I 2) as `fuse` takes them: `pixels` I K D, `mask` I K bool."""

    @abstractmethod
    def embed_texts(self, input_ids_RL: Tensor) -> Tensor:
        """R L int64 → R L D float."""

    @abstractmethod
    def fuse(
        self, words_QLD: Tensor, text_mask_QL: Tensor, pixels_QKD: Tensor, pixel_mask_QK: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        """Pairs of a text and an image. Masks: bool, True at tokens and at the image's own pixels. Returns the last hidden
        states of words (Q L D) and pixels (Q K D), and the attentions or None."""

    @abstractmethod
    def cls_logits(self, words_QLD: Tensor) -> dict[str, Tensor]:
        """By head, the logits (Q outputs) of what stands at [CLS], words_QLD[:, 0]."""

    def pair_logits(
        self, words_QLD: Tensor, text_mask_QL: Tensor, pixels_QKD: Tensor, pixel_mask_QK: Tensor
    ) -> dict[str, Tensor]:
        """`cls_logits` of what `fuse` gives, for a model that can leave out the hidden states that these do not need. Default:
        just that."""
        words_QLD, _, _ = self.fuse(words_QLD, text_mask_QL, pixels_QKD, pixel_mask_QK)
        return self.cls_logits(words_QLD)


class ImageEncoder(Compilable, Portable, Publishable, Inferring, Protocol):
    """`register_encoder`, in the place of a model's image_encoder: an nn.Module, built with `config`."""

    out_channels: int  # C
    grid_centres: tuple[float, float] | None = None  # where the first pixel of the grid looks, the centre of what it sees, and
    # how far on the next one does, in pixels of the image as `forward` gets it, each way; None: nothing is known of it
    normalization: Normalization | None = None  # of the images that weights it has read were trained on; None: any

    @abstractmethod
    def forward(self, images_I3HW: Tensor, sizes_I2: Tensor) -> PixelFeatures:
        """Images float32, normalised, padded below and right with zeros; their sizes (height, width) int64 on the CPU.

        Returns `pixels` I P C float, 0 at padding; `mask` I P bool, True at an image's own pixels; `grid` (rows, columns). An
        image's features should not depend on how much it is padded.
        """


class TextEncoder(Compilable, Portable, Protocol):
    """`register_encoder`, in the place of a model's text_encoder: an nn.Module, built with `config, vocab_size, pad_token_id`.

    It is the transformer that words and pixels share.
    """

    hidden_size: int  # D
    draws: RowDraws | None = None  # its dropout, where that can be repeated for some sequences; None: it cannot
    word_embeddings: nn.Parameter  # V D, the output weights of masked language modelling
    initializer_range: float = 0.02  # std of the weights that the model adds (BERT's)

    @abstractmethod
    def embed(self, input_ids_RL: Tensor) -> Tensor:
        """R L int64 → R L D float: what goes into the transformer."""

    @abstractmethod
    def forward(self, hidden_QSD: Tensor, mask_QS: Tensor, return_attentions: bool) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Words, then pixels, through the transformer; mask bool, True where there is one. Returns Q S D and, where asked for,
        each layer's attention weights, Q heads S S, else None."""

    def read(self, hidden_QSD: Tensor, mask_QS: Tensor, positions_QJ: Tensor) -> Tensor:
        """Q J D: the last hidden states at these positions (int64), for an encoder that can leave out the others. Default:
        `forward` computes all."""
        module: Any = self
        hidden_QSD, _ = module(hidden_QSD, mask_QS, False)
        return hidden_QSD.gather(1, positions_QJ[..., None].expand(-1, -1, hidden_QSD.shape[-1]))

    def pretrained_heads(self) -> dict[str, dict[str, Tensor]]:
        """By name of a head (models/heads.py), its weights where the encoder's own came with them ("mlm"). Default: none."""
        return {}

    def save_pretrained(self, folder: Path, heads: Mapping[str, nn.Module]) -> dict[str, str]:
        """As Publishable's, with those of the model's heads (models/heads.py) that the layout has a place for. Default: nothing
        is written."""
        return {}


class Stateful(Portable, Protocol):
    """A processor's part in checkpoints."""

    config: Any = None  # the options it was built with

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of it, as JSON: a vocabulary. Default: {}, nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a `state_dict` over. Default: nothing happens."""


class Learning(Stateful, Protocol):
    """A processor that learns from data keeps what it has learned in checkpoints: a model's weights belong to it."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What was learned, as JSON."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was learned; then nothing needs to be."""


class TextProcessor(Stateful, Protocol):
    """`register_processor`, as processors.text: built with `config`. A checkpoint's state replaces its vocabulary."""

    vocab_size: int  # V; once a vocabulary is there
    pad_token_id: int  # what shorter texts of a batch are filled up with; once a vocabulary is there
    needs_fit: bool = False  # whether it must learn a vocabulary; then it is a LearningTextProcessor
    max_length: int | None = None  # tokens; longer texts are cut. None: nothing is known of a limit
    shortest_cut: int = 0  # bytes (UTF-8): shorter texts are never cut, so that they need not be looked at. 0: any may be

    @abstractmethod
    def __call__(self, text: str) -> tuple[list[int], bool]:
        """Token ids, a model's [CLS] first, and whether the text was cut. Called in workers."""

    def save_pretrained(self, folder: Path) -> dict[str, str]:
        """As Publishable's: the vocabulary. Default: nothing is written."""
        return {}

    def count_cut(self, texts: Iterable[str]) -> int:
        """How many of the texts are cut. Default: each is tokenized."""
        return sum(self(text)[1] for text in texts)

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """What a text's tokens are called where they are shown: each word as it is written, with the places of its tokens among
        those of `__call__`. Default: each token by its number in the vocabulary."""
        return [(f"#{number}", [place]) for place, number in enumerate(self(text)[0])]


class LearningTextProcessor(Learning, TextProcessor, Protocol):
    """A text processor whose `needs_fit` is true."""

    @abstractmethod
    def fit(self, texts: Iterable[str]) -> None:
        """Learn a vocabulary from the training texts."""


class MaskingTextProcessor(TextProcessor, Protocol):
    """A text processor for masked language modelling."""

    mask_token_id: int

    @abstractmethod
    def pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """V bool each: which entries are words or pieces of words (not special tokens), and which continue a word."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""


class ImageProcessor(Stateful, Protocol):
    """`register_processor`, as processors.image: built with `config`."""

    normalization: Normalization | None = None  # of the images that it gives; None: nothing is known of it
    augments: bool = True  # whether `augment` may change an image; False: features of images can be kept in training too

    @abstractmethod
    def decode(self, source: ImageSource) -> Tensor:
        """In a worker: a file by its path as 3 h w uint8 RGB; where a loaded model is asked, also an image in memory, which
        `data.images.read_image` takes too. Raises `data.images.BadImageError` where it cannot be read."""

    @abstractmethod
    def augment(self, image: Tensor, seed: int) -> Tensor:
        """In a worker, in training alone: 3 h w uint8 → 3 h' w' uint8, a function of the image and `seed`."""

    @abstractmethod
    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels that an image of this size gets: what batches of like size are formed by."""

    @abstractmethod
    def __call__(self, images: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        """On the device: images (3 h w uint8) → I 3 H W float32, resized, normalised and padded below and right with zeros,
        and I 2 int64 on the CPU, height and width of each before padding."""


class AnswersProcessor(Stateful, Protocol):
    """`register_processor`, as processors.answers: built with `config`."""

    answers: list[str]  # A: the vocabulary's answers
    spellings: list[str]  # A: each as it is predicted
    needs_fit: bool = False  # whether its vocabulary must be counted; then it is a LearningAnswersProcessor
    splits: Sequence[str] = ("train",)  # where answers are counted
    remedy: str = ""  # what to change where the vocabulary covers few questions

    @abstractmethod
    def __len__(self) -> int:
        """A."""

    @abstractmethod
    def scores(self, answers: tuple[str, ...]) -> Tensor:
        """A float32: how right each answer of the vocabulary is, in 0…1, given those of a question's annotators, in whatever
        order; so below."""

    @abstractmethod
    def covers(self, answers: tuple[str, ...]) -> bool:
        """Whether one of the annotators' answers is in the vocabulary."""

    @abstractmethod
    def ceiling(self, answers: tuple[str, ...]) -> float:
        """The score, in 0…1, of the best prediction that the vocabulary allows."""

    def learn_spellings(self, spellings: Iterable[str]) -> None:
        """How annotators write the answers of a vocabulary that was not counted. Default: nothing is learned."""


class LearningAnswersProcessor(Learning, AnswersProcessor, Protocol):
    """A processor of answers whose `needs_fit` is true."""

    @abstractmethod
    def fit(self, main_answers: Iterable[str], spellings: Iterable[str]) -> None:
        """Count each question's main answer; `spellings`: all annotators' answers."""


class TrainSamples(Protocol):
    """The training samples, as a task learns a baseline from them."""

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]:
        """Each of them."""

    @abstractmethod
    def labelled(self, group: str) -> Iterator[tuple[str, str, str | None]]:
        """Of each its text, its kind in `group` ("": none) and its `answer`: many times as fast as samples."""


class Builder(Protocol):
    """`register_builder`: a data set, built with `config, data_dir, cache_dir`. Derive it from `data.builders.base.Builder`,
    which has all but `samples`."""

    config: Any  # a BuilderConfig

    @abstractmethod
    def samples(self, split: str) -> Iterable[Sample]:
        """All pairs of "train", "val" or "test", a list or one by one, in a fixed order with unique sample ids."""

    @abstractmethod
    def has_split(self, split: str) -> bool:
        """False where the data set has no such split and a mixture does without it."""

    @abstractmethod
    def own_splits(self) -> list[str]:
        """The data set's own splits, for `use` to choose from; [] where it has but train, val and test."""

    @abstractmethod
    def source_split(self, split: str) -> str:
        """The data set's own split that serves as `split`."""

    @abstractmethod
    def files(self, split: str) -> list[tuple[str, Path]]:
        """The annotation files that `split` is read from, each with the config key that names it."""

    @abstractmethod
    def count(self, split: str, samples: Any) -> dict[str, int]:
        """What `config.counts` may hold of a split, as it is in the files; of its `samples` as data.samples.Samples."""


class LearnedTask(Protocol):
    """What every task has, however it is evaluated: `register_task`, built with `config, processors`.

    Tasks hold no parameters: heads live in the model.
    """

    main_metric: str  # chooses checkpoints/best on the validation split
    processors: tuple[str, ...] = ("text", "image")  # which of the config's processors it needs
    num_negatives: int = 0  # texts of other images that every sample is given beside its own
    pairs_per_sample: int = 1  # how many of training.batch_size's pairs one sample is
    images_per_sample: int | None = None  # how many images a sample must have; None: any number
    needs_answers: bool = False  # whether it learns answers, which training samples must then have
    scores_all_pairs: bool = False  # whether it is a MatchingTask
    # whether loss and predict read output.logits alone: then output.text and output.pixels may be None, and the transformer's
    # last layer be computed for [CLS] and masked words only
    reads_logits_only: bool = False
    # from the logits of all R rows, those that send gradient, in order (int64); None: all of them do
    chosen: Callable[[dict[str, Tensor], Batch], Tensor] | None = None
    fit: Callable[[TrainSamples], None] | None = None  # learns a baseline from the training samples; None: it has none
    # the predictions file in the data set's official format: results → its suffix (".json", ".csv") and text; None: no file
    predictions: Callable[[list[Result]], tuple[str, str]] | None = None
    # for `pixelbert-run --compare`, called on the class, as a staticmethod: (its Config or None, the text of such a file, the
    # split's samples by str(sample_id)) → results with scores, in the file's order. Raises ValueError or KeyError for another
    # file. None: it cannot be read back
    read_predictions: Callable[[Any, str, Mapping[str, Sample]], list[Result]] | None = None
    # likewise: by metric, the place of each result that counts and what it adds above and below the line, of whose sums the
    # metric is the ratio. None: each of `scores` is averaged, over all and by kind of sample
    terms: Callable[[list[Result]], dict[str, dict[int, tuple[float, float]]]] | None = None

    @abstractmethod
    def heads(self) -> dict[str, int]:
        """The model's heads this task needs, by name, with their number of outputs."""

    def asked(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        """What a trained model can be asked: by method of a loaded model, what it needs, float32 of the logits of a forward.

        "answer": B A, the probability of each of the answers' processor's spellings. "match": Q, the log-odds that image and
        text belong together. "compare": B, the log-odds that a statement about two images is true. "fill": M V, the
        probability of each entry of the vocabulary at the M masked words. Default: {}, nothing; it can still be called.
        """
        return {}

    def explained(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        """What an explanation explains, by what can be asked: log-odds, float32 of the logits, of the shapes of `asked`, with
        gradient, "fill" of every entry of the vocabulary. Default: `asked`'s, of which probabilities are made log-odds, which
        have no gradient where float32 has them as 0 or 1."""

        def log_odds(function: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[dict[str, Tensor]], Tensor]:
            return lambda logits: function(logits).logit(eps=1e-7)

        kept = ("match", "compare")
        return {name: function if name in kept else log_odds(function) for name, function in self.asked().items()}

    @abstractmethod
    def prepare(self, batch: Batch, seeds: list[int]) -> None:
        """In a worker: set `batch.targets`, what `loss` compares with, from `batch.samples` (B), which stay there; mask words.
        Draws are functions of `seeds` (B)."""

    @abstractmethod
    def loss(self, output: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """By part of the loss: its sum over the micro-batch, already times its weight. Each divides by its `counts`."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """By part of the loss: how many terms its sum has, so that micro-batches add up to the mean of the update. Asked before
        the images are on the device: of `batch.images` nothing is known yet."""


class Task(LearnedTask, Protocol):
    """A task that is evaluated sample by sample."""

    @abstractmethod
    def predict(self, output: ModelOutput, batch: Batch) -> list[Result]:
        """One result per sample; `batch.samples` has them."""

    @abstractmethod
    def metrics(self, results: list[Result]) -> dict[str, float]:
        """Metrics over a whole split, each sample once."""


class MatchingTask(LearnedTask, Protocol):
    """A task that is evaluated by scoring every image-text pair of a split; its model must be a `MatchingModel`."""

    scores_all_pairs: bool = True
    max_val_images: int | None = None  # how many images a validation while training scores; None: all
    max_test_images: int | None = None  # how many images a final evaluation scores; None: all

    @abstractmethod
    def scores(self, logits: dict[str, Tensor]) -> Tensor:
        """Q float32 from the [CLS] heads' logits, higher for better matches."""

    @abstractmethod
    def matrix_metrics(self, scores_IT: np.ndarray, image_of_text_T: np.ndarray) -> dict[str, float]:
        """Metrics of the matrix of scores, images by texts; `image_of_text_T`: the row of each text's own image."""


class Metric(Protocol):
    """`register_metric`: a function, not built. The task vqa takes one by `task_config.vqa.metric`."""

    @abstractmethod
    def __call__(self, prediction: str, answers: tuple[str, ...]) -> float:
        """The score in 0…1 of a predicted answer, given those of the annotators."""


class Optimizer(Protocol):
    """What `register_optimizer` gives, called with `config, named_parameters`: a torch.optim.Optimizer.

    `named_parameters`: name and parameter of one of the model's groups. Its rates are multiplied by the schedule's factor.
    """

    param_groups: list[dict[str, Any]]
    state: Any  # by parameter
    rule: str = ""  # "sgd", "adamw", "lamb": a state suits any other optimizer of the same rule. "": the class's own
    counts_steps_by_group: bool = False  # whether `step` stands in the group, as Apex has it, not in each parameter's state
    has_float32_state: bool = False  # whether the state of a float16 weight is float32

    @abstractmethod
    def step(self) -> Any:
        """One step with the gradients that the parameters have."""

    @abstractmethod
    def zero_grad(self) -> None:
        """Clear the gradients."""


class Scheduler(Protocol):
    """What `register_scheduler` gives, called with `config`: a function of the position alone, so that a resume is exact."""

    @abstractmethod
    def __call__(self, update: int, epoch: float, progress: float) -> float:
        """Factor on the learning rates at `update` (counted from 1), which starts when `epoch` passes over the data are done.

        `progress`: the share of the training that is done then, 0 at the start and 1 at its end: of max_updates or of
        max_epochs, whichever is further on.
        """


class Precision(Protocol):
    """`register_precision`, built with `config, device`. The base in `precision/native.py` has all of this.

    The order of calls: build, `prepare`, then for each update forward passes inside `autocast`, a `backward` for each and
    one `step`.
    """

    device: torch.device
    description: dict[str, str]  # what is really used, for logs and checkpoints
    skips_overflow: bool = False  # whether an update is skipped whose gradient is not finite; else that ends the training
    loss_scale: float | None = None  # factor on the loss in `backward`; None: no scaling
    skipped_updates: int = 0

    @abstractmethod
    def prepare(self, model: nn.Module, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        """Once, before the first forward pass and before DDP: cast the model and give the optimizers what they step."""

    @abstractmethod
    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""

    @abstractmethod
    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Add the gradients of the loss (scalar); `is_last` in the last micro-batch of an update."""

    @abstractmethod
    def step(self, optimizers: Iterable[torch.optim.Optimizer], max_norm: float | None) -> Tensor:
        """Clip by the norm of all gradients on all processes, step every optimizer or none, clear the gradients.

        Returns the norm before clipping (scalar float32).
        """

    @abstractmethod
    def optimized(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """By the model's names, what checkpoints save: the float32 master of a weight where there is one, else itself."""

    def group_norms(self, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
        """By parameter group, the norm of its gradients before clipping (scalar float32), once the last `backward` is done and
        before `step`; it changes none. Default: {}, nobody looks."""
        return {}

    def state_dict(self) -> dict[str, float | int]:
        """The state of a dynamic loss scale. Default: {}, none."""
        return {}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Take over the state of this or another precision, as far as it is of use here. Default: nothing."""


class CheckpointReader(Protocol):
    """`register_checkpoint_reader`: reads files of weights that others wrote; built with `config`."""

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether the file is of its layout, by its name or its first bytes."""

    @abstractmethod
    def read(self, path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights by our names, and what the file holds beside them (`{"processors": …}`).

        Raises UserError with `key`, the config key that named the file, where it is not what it was taken for.
        """


class Tracker(Protocol):
    """`register_tracker`, one of `trackers`: where a training's figures go beside log.jsonl; built with `config`.

    It is built before any work, and then called in the main process alone: `begin`, all others in any order, `close`. Whatever
    it raises is told as one warning, and it is asked nothing more: no tracker ends a run. An exception is a UserError of its
    construction, as of a package that is not installed. `update` counts from 1; names have slashes, "val/vqa2/accuracy".
    """

    @abstractmethod
    def begin(self, run: TrackedRun) -> None:
        """A training begins, or goes on after `run.resumed_update`: what was logged past that is to be dropped, or marked."""

    @abstractmethod
    def scalars(self, values: dict[str, float], update: int) -> None:
        """Figures of an update, or of the evaluation after it."""

    def texts(self, values: dict[str, str], update: int) -> None:
        """Texts in Markdown by name. Default: they are left out."""

    def picture(self, name: str, figure: Figure, update: int) -> None:
        """A figure of matplotlib's, which other trackers get too. Default: it is left out."""

    def final(self, metrics: dict[str, float]) -> None:
        """Metrics of the evaluation of the best checkpoint after the training, by "split/dataset/metric". Default: nothing."""

    def flush(self) -> None:
        """A checkpoint is about to be saved: what was given until now should outlive a kill. Default: nothing."""

    def close(self) -> None:
        """The run ends, perhaps by an error. Default: nothing."""


class Explanation(Protocol):
    """`register_explanation`: a method that says where on its images an answer comes from; built with `config`."""

    needs_attentions: bool = False  # whether it works for models alone whose `gives_attentions` is true

    @abstractmethod
    def __call__(self, given: ExplanationInput) -> list[ExplanationMap]:
        """One map for each of the text's images, in their order. Gradient may be off where it is called."""
