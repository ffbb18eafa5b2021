"""A trained model with its processors, ready to be asked: `pixelbert_plugin.load` builds it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast, overload

import torch
from torch import Tensor, nn

from pixelbert_plugin.asking.answer import AnswerQuestion
from pixelbert_plugin.asking.compare import CompareQuestion
from pixelbert_plugin.asking.explanation import Explanation
from pixelbert_plugin.asking.fill import FillQuestion
from pixelbert_plugin.asking.images import Decoded, decoded
from pixelbert_plugin.asking.match import MatchQuestion
from pixelbert_plugin.asking.question import BATCH_SIZE, ask, checked
from pixelbert_plugin.asking.results import Answers, Comparison, Fillings, Match, SearchResults
from pixelbert_plugin.asking.search import Gallery, Searched, SearchQuestion
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.collate import ImageKey, collate, read_positions
from pixelbert_plugin.data.images import BadImageError, ImageSource
from pixelbert_plugin.data.loader import ready
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.interfaces import Model, Precision
from pixelbert_plugin.precision.inference import cast_weights
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.types import Batch, ModelOutput, Sample

Given: TypeAlias = "ImageSource | Decoded"
Images: TypeAlias = "Given | list[Given] | tuple[Given, ...]"  # of one text
T = TypeVar("T")
Many: TypeAlias = list[T] | tuple[T, ...]


class LoadedModel:
    """A trained model with its processors, in evaluation mode. It is asked by `answer`, `match`, `search`, `compare` or `fill`,
    as its task has heads for, and says by `explain` where that comes from; called with an image and a text it gives the model's
    output.

    An image is a path, an encoded file's bytes, Pillow's image, or uint8 RGB: an array H W 3 or a tensor 3 H W. Files are
    opened and resized as in training; texts longer than the model reads are cut as in training, with a warning. In the methods
    an argument is one image or text, or a list of them: a list goes with lists of its length, and with what is given once.
    Then a list of results comes back in that order; `batch_size` pairs go through the model at a time. A result does not depend
    on which others are asked with it, but for rounding.

    Raises UserError for an image that cannot be read, a text that is none, and a method that the model has no head for.

    model: the torch module, float32, on `device`.
    config: the configuration of the run that trained it, without the files its weights and vocabularies began with.
    processors: text, image and, where the task has answers, answers; with the vocabularies of the training.
    task: the task it was trained for; `task.heads()` names the logits.
    device: where it computes.
    path: the checkpoint folder or the file it came from.
    precision: what the forward pass computes in.
    is_fast: whether the model was changed for inference alone.
    """

    def __init__(
        self,
        model: nn.Module,
        config: RunConfig,
        processors: dict[str, Any],
        task: Task,
        device: torch.device,
        path: Path,
        precision: Precision | None = None,
        is_fast: bool = False,
    ):
        self.model, self.config, self.processors, self.task = model, config, processors, task
        self.device, self.path, self.precision, self.is_fast = device, path, precision, is_fast
        if is_fast:
            cast(Model, model).prepare_inference()
            if precision is not None:
                cast_weights(model, precision.autocast)

    def __call__(self, image: Images, text: str) -> ModelOutput:
        """The output for one text (question, caption, statement) with its image, or its images as a list (NLVR2: two).

        Logits of the head "mlm" are those at the text's [MASK]s. Raises UserError for an image that cannot be read, or another
        number of images than the task has.
        """
        return self.forward([(image, text)])

    @overload
    def answer(self, image: Given, question: str, top_k: int = 5, *, batch_size: int = ...) -> Answers: ...
    @overload
    def answer(
        self, image: Many[Given], question: str | Many[str], top_k: int = 5, *, batch_size: int = ...
    ) -> list[Answers]: ...
    @overload
    def answer(self, image: Given, question: Many[str], top_k: int = 5, *, batch_size: int = ...) -> list[Answers]: ...
    def answer(self, image: Any, question: Any, top_k: int = 5, *, batch_size: int = BATCH_SIZE) -> Any:
        """The `top_k` most probable answers to a question about an image (VQA).

        An answer's probability is a sigmoid of its own, as in the loss: how right annotators would find it, whatever the others
        are. They do not add up to 1.
        """
        return ask(AnswerQuestion(self, top_k), (image,), question, batch_size)

    @overload
    def match(self, image: Given, texts: str, *, batch_size: int = ...) -> Match: ...
    @overload
    def match(self, image: Many[Given], texts: str | Many[str], *, batch_size: int = ...) -> list[Match]: ...
    @overload
    def match(self, image: Given, texts: Many[str], *, batch_size: int = ...) -> list[Match]: ...
    def match(self, image: Any, texts: Any, *, batch_size: int = BATCH_SIZE) -> Any:
        """Whether texts belong to an image (retrieval, or pre-training with ITM): for each pair by itself.

        The probability is the softmax of the matching head for that pair: those of several texts do not add up to 1. A model
        that was fine-tuned for retrieval was trained to rank them, so it means less than their order, which is `score`'s.
        """
        return ask(MatchQuestion(self), (image,), texts, batch_size)

    @overload
    def search(self, images: Searched, text: str, top_k: int = 5, *, batch_size: int = ...) -> SearchResults: ...
    @overload
    def search(self, images: Searched, text: Many[str], top_k: int = 5, *, batch_size: int = ...) -> list[SearchResults]: ...
    def search(self, images: Any, text: Any, top_k: int = 5, *, batch_size: int = BATCH_SIZE) -> Any:
        """The `top_k` images that belong to a text best, with the probabilities and scores of `match`.

        `images`: a folder, whose image files are searched, those in folders below it too; a list of images; or a `gallery`.
        Each image goes through the CNN once, however many texts there are. Those that cannot be read are listed in the result.
        """
        question = SearchQuestion(self, top_k)
        texts = checked(question, text)
        results = question.search(images, texts, batch_size)
        return results if isinstance(text, list | tuple) else results[0]

    def gallery(self, images: Searched, *, batch_size: int = BATCH_SIZE) -> Gallery:
        """The images of a folder or a list, encoded once, for any number of calls of `search`. They are kept in main memory."""
        return SearchQuestion(self).gallery(images, batch_size)

    @overload
    def compare(self, left: Given, right: Given, statement: str, *, batch_size: int = ...) -> Comparison: ...
    @overload
    def compare(
        self, left: Given | Many[Given], right: Given | Many[Given], statement: str | Many[str], *, batch_size: int = ...
    ) -> Any: ...
    def compare(self, left: Any, right: Any, statement: Any, *, batch_size: int = BATCH_SIZE) -> Any:
        """Whether a statement about two images is true (NLVR2). A list of Comparison where any argument is a list.

        The probability is the softmax of the head's two labels, that of "True".
        """
        return ask(CompareQuestion(self), (left, right), statement, batch_size)

    @overload
    def fill(self, image: Given, text: str, top_k: int = 5, *, batch_size: int = ...) -> Fillings: ...
    @overload
    def fill(self, image: Many[Given], text: str | Many[str], top_k: int = 5, *, batch_size: int = ...) -> list[Fillings]: ...
    @overload
    def fill(self, image: Given, text: Many[str], top_k: int = 5, *, batch_size: int = ...) -> list[Fillings]: ...
    def fill(self, image: Any, text: Any, top_k: int = 5, *, batch_size: int = BATCH_SIZE) -> Any:
        """The `top_k` most probable words at each [MASK] of a text about an image (pre-training with MLM).

        A word's probability is the softmax over the whole vocabulary at that [MASK], while other [MASK]s stay masked. Special
        tokens are not among the words.
        """
        return ask(FillQuestion(self, top_k), (image,), text, batch_size)

    def explain(
        self,
        image: Images,
        text: str,
        method: str | None = None,
        answer: str | None = None,
        *,
        options: dict[str, Any] | None = None,
    ) -> Explanation:
        """Where on its image an answer comes from, for what the task asks: a question (VQA), a text that matches or not, a
        statement about two images (a list of them), or the first [MASK] of a text.

        `method`: by its registered name, with its `options` ("pixelbert-run --list" has them); None: the one that
        docs/explanations.md found to be best, and for words the best one that has maps of them. `answer`: which one is
        explained, as the model spells it ("match" or "no match", "True" or "False", a word of the vocabulary); None: the most
        probable one.

        Raises UserError for an answer that the model does not have, and a method that is not for this model.
        """
        from pixelbert_plugin.asking.explain import explain

        return explain(self, image, text, method, answer, options)

    @torch.no_grad()
    def forward(self, pairs: Sequence[tuple[Images, str]]) -> ModelOutput:
        """The output for several pairs in one forward: row n of the logits is pair n's. An image given twice, as the same
        object or path, goes through the CNN once."""
        return self.output(self.batch(pairs))

    @torch.no_grad()
    def output(self, batch: Batch) -> ModelOutput:
        """The output for a `batch` that was made already."""
        with self.autocast():
            return self.model(batch)

    def autocast(self) -> AbstractContextManager[Any]:
        """What the model computes in, for calls of its parts."""
        return self.precision.autocast() if self.precision is not None else nullcontext()

    def save_pretrained(self, folder: str | Path) -> dict[str, str]:
        """Write the encoders for other programs into a new folder: image_encoder/ in torchvision's or timm's names,
        text_encoder/ with its vocabulary as transformers reads them. Returns, by part, the file, or why there is none.

        Raises UserError where `folder` holds something already, or nothing of the model has such names.
        """
        target = Path(folder).expanduser()
        given = f"folder={str(folder)!r}"
        if self.is_fast:
            raise UserError(f"{given}: a model loaded with fast=True is for inference alone; load it without")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{given}: is there already and not empty; choose another folder")
        with writing(target, "folder"):
            found = cast(Model, self.model).save_pretrained(target)
            if "text_encoder" in found:
                found |= self.processors["text"].save_pretrained(target / "text_encoder")
        if not found:
            raise UserError(f"{given}: the model {self.config.model!r} has no part in the names of another program")
        return found

    def batch(self, pairs: Sequence[tuple[Images, str]], logits_only: bool = False) -> Batch:
        """The model's input for (image, text) pairs, on `device`. `logits_only`: the output needs no hidden states, so that a
        model may compute only those that its heads read."""
        text, encoded, samples = self.processors["text"], [], []
        keys: list[list[ImageKey]] = []  # of each text's images
        pixels: dict[ImageKey, Tensor] = {}
        wanted = self.task.images_per_sample
        for number, (given, words) in enumerate(pairs):
            images: list[Given] = list(given) if isinstance(given, list | tuple) else [given]
            if not isinstance(words, str):
                raise TypeError(f"a text is a str, not {type(words).__name__}")
            if not images or len(images) != (wanted or len(images)):
                raise UserError(f"{len(images)} image(s) to a text: the task {self.config.task!r} has {wanted or 'at least 1'}")
            keys.append([(str(image),) if isinstance(image, str | Path) else (id(image),) for image in images])
            for key, image in zip(keys[-1], images, strict=True):
                if key not in pixels:
                    pixels[key] = self.decoded(image)
            encoded.append(text(words)[0])
            samples.append(Sample(sample_id=number, image_ids=tuple(key[0] for key in keys[-1]), images=(), text=words))
        if not samples:
            raise ValueError("no (image, text) pair")
        batch = collate(samples, encoded, keys, pixels, dict.fromkeys(pixels, 0), [1.0] * len(samples), text.pad_token_id)
        if "mlm" in self.task.heads():
            batch.targets["mlm_positions"] = (batch.input_ids == text.mask_token_id).flatten().nonzero()[:, 0]
        if logits_only:
            batch.read_positions = read_positions(batch)
        return ready(batch, self.processors["image"], self.device)

    def decoded(self, image: Given) -> Tensor:
        """An image as the model's batches take it: 3 h w uint8. Raises UserError where it cannot be read."""
        try:
            return decoded(self.processors["image"], image)
        except BadImageError as error:
            raise UserError(str(error)) from error
