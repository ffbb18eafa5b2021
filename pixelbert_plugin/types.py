"""What flows along the straight path, its shapes documented once.

Legend: B samples, R texts (rows: each sample's own text, then its negatives; R = B where a task has none), L tokens,
J of them read by heads, I images, H W padded height and width, N images per text (1; NLVR2: 2), Q = R·N sequences through the
transformer, P pixels of the CNN's grid (rows × columns), K of them kept, D hidden size, S = L + K.

Builders yield Samples without torch: it is imported by whoever makes a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(kw_only=True)
class Sample:
    """One pair as a builder yields it: text, image files and, where the split has them, answers."""

    sample_id: int | str  # unique within its data set and split; predictions are keyed by it
    image_ids: tuple[int | str, ...]  # one per image; samples that share an image share its id
    images: tuple[Path, ...]  # image files, N of them
    text: str  # question, caption or statement
    answers: tuple[str, ...] = ()  # annotators' answers; empty where the split has none
    answer: str | None = None  # the answer most annotators gave ("multiple_choice_answer" of VQA)
    groups: dict[str, str] = field(default_factory=dict)  # for results by kind, e.g. {"answer_type": "yes/no"}


@dataclass(kw_only=True)
class Batch:
    """A micro-batch on its way to the model. A sample's rows stand together, its own text first."""

    sample_ids: list[int | str]  # B
    input_ids: Tensor  # R L int64, [CLS] … [SEP] then padding
    text_mask: Tensor  # R L bool, True at tokens
    # from workers: I × (3 h w) uint8, or features that were kept, rows columns C; on the device: I 3 H W float, padded with 0
    images: list[Tensor] | Tensor
    image_sizes: Tensor | None = None  # I 2 int64 on the CPU, height and width of each image before padding
    features: PixelFeatures | None = None  # on the device, in the place of images, where a frozen encoder's are kept
    # from workers, what each image's features are kept by; None: it stands in for an unreadable image. []: none are kept
    feature_names: list[str | None] = field(default_factory=list)
    image_index: Tensor  # R N int64, which images each text is put to
    image_seeds: Tensor  # I int64, new in each update (see seeding.py): drives augmentation and pixel sampling
    weights: Tensor  # B float32, 1, or 0 for a sample whose image could not be read and was skipped
    # R J int64, of each text's words those whose last hidden states heads read: [CLS] (0), masked words, and 0 to fill rows up.
    # None: all hidden states are asked for, as by a task that does not say `reads_logits_only`
    read_positions: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)  # by name, set by the task
    samples: list[Sample] = field(default_factory=list)  # B, for a task's `prepare` and `predict`; [] in training's loss

    def __len__(self) -> int:
        return len(self.sample_ids)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A copy with `function` applied to every tensor."""
        from torch import Tensor

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, dict):
                return {key: apply(item) for key, item in value.items()}
            if isinstance(value, list) and value and isinstance(value[0], Tensor):
                return [function(item) for item in value]
            if isinstance(value, PixelFeatures):
                return replace(value, pixels=function(value.pixels), mask=function(value.mask))
            return value

        return replace(self, **{item.name: apply(getattr(self, item.name)) for item in fields(self)})

    def to(self, target: torch.device | torch.dtype) -> Batch:
        """A copy on a device, or with its floating-point tensors as another type (which Apex asks of what a model is given)."""
        import torch

        if isinstance(target, torch.dtype):
            return self.map(lambda tensor: tensor.to(target) if tensor.is_floating_point() else tensor)
        return self.map(lambda tensor: tensor.to(target, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader, so that the copy to the GPU overlaps with computation."""
        return self.map(lambda tensor: tensor.pin_memory())


# In a worker, a task's part: sets batch.targets, and may mask words of batch.input_ids. Seeds: f(seed, epoch, sample id), B.
Prepare = Callable[[Batch, list[int]], None]


@dataclass(kw_only=True)
class PixelFeatures:
    """What an image encoder returns."""

    pixels: Tensor  # I P C float, rows first; 0 at padding
    mask: Tensor  # I P bool, True at the image's own pixels
    grid: tuple[int, int]  # rows, columns: P = rows · columns


@dataclass(kw_only=True)
class ModelOutput:
    """What a model returns."""

    logits: dict[str, Tensor]  # by head
    text: Tensor | None  # Q L D, the words' last hidden states; text[:, 0] is [CLS]. None where logits alone are asked for
    pixels: Tensor | None  # Q K D, the pixels' last hidden states. None likewise
    pixel_mask: Tensor  # Q K bool
    pixel_positions: Tensor  # Q K int64, each pixel's place in its image's grid: row · columns + column
    grid: tuple[int, int]  # rows, columns of one image's grid
    attentions: tuple[Tensor, ...] | None = None  # per layer Q heads S S, where asked for


@dataclass(kw_only=True)
class ExplanationInput:
    """One text with its images, whose answer is explained."""

    model: nn.Module  # in evaluation mode
    batch: Batch  # of this text alone, on the device: R = 1, its images I 3 H W
    score: Callable[
        [ModelOutput], Tensor
    ]  # what is explained, with gradient: R float32, the log-odds of the answer for each text
    read_at: int  # the token whose last hidden state the answer is read off: 0, [CLS], or a [MASK]
    words: list[list[int]]  # W: the places of each word's tokens
    autocast: Callable[[], AbstractContextManager[Any]]  # what the model computes in
    normalization: tuple[Sequence[float], Sequence[float]] | None  # of the images: mean and std of red, green and blue in 0…1


@dataclass(kw_only=True)
class ExplanationMap:
    """What a method finds on one image, on the CPU: larger is more, in a grid of any fineness."""

    answer: Tensor  # rows columns float32
    words: Tensor | None = None  # W rows columns float32; None: the method has no maps of words
    # where the centres of rows and of columns lie, in 0…1 of the image's height and width, ascending; None: evenly over it
    centres: tuple[list[float], list[float]] | None = None


@dataclass
class Result:
    """One sample's evaluation: what was predicted, what is true, and the scores that `metrics` makes figures of."""

    sample: Sample
    prediction: str
    truth: str | None  # None where the split has no answers
    scores: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)  # a small table of what was predicted, to be looked at; by column


@dataclass(kw_only=True)
class ImageMemory:
    """Images ready for the transformer, to be put to any number of texts."""

    pixels: Tensor  # I K D
    mask: Tensor  # I K bool
    positions: Tensor  # I K int64, row · columns + column
    features: PixelFeatures  # what the CNN gave, before sampling and projection


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told of a run that begins, or goes on."""

    name: str  # of its folder
    folder: Path  # env.save_dir; it is there
    resumed_update: int  # 0 at the start of a training
    options: dict[str, bool | int | float | str]  # every option by dotted key; what was used where that was left open as used.…
    changed: tuple[str, ...]  # keys of options that are not their defaults, those of the command line first
    config: str  # config.yaml
    metrics: tuple[str, ...] = ()  # names of scalars that tell how good the run is, the most important one first


@dataclass(frozen=True)
class CompileUnit:
    """A block of a model that `training.compile` compiles by itself: what stands in the place of `module.forward` in training.

    It must be traceable without a break, and compute what `forward` computes, up to rounding.
    """

    module: nn.Module
    function: Callable[..., Any] | None = None  # called with `module` and what `inputs` gives. None: the class's `forward`
    inputs: Callable[..., tuple[Any, ...]] | None = None  # of forward's arguments, not compiled itself. None: these themselves
