"""Why a model answers as it does: the question as its task has it, and a method of the registry kind `explanation`."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.asking.answering import QUESTIONS
from pixelbert_plugin.asking.explanation import Explanation, ImageExplanation
from pixelbert_plugin.asking.fill import MASK, FillQuestion
from pixelbert_plugin.asking.images import Decoded
from pixelbert_plugin.asking.options import Way
from pixelbert_plugin.asking.question import CALLS, Question, checked
from pixelbert_plugin.data.images import read_image
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.registry import returned
from pixelbert_plugin.registry.schema import UnknownComponentError, nearest
from pixelbert_plugin.types import Batch, ExplanationInput, ExplanationMap, ModelOutput

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel

BEST = "integrated_gradients"  # by the table of docs/explanations.md
BEST_OF_WORDS = "rollout"  # the same of those that have maps of words
LABELS = {"match": ("no match", "match"), "compare": ("False", "True")}  # by what is asked, of log-odds below 0 and above
ORDER: tuple[Way, ...] = ("answer", "compare", "match", "fill")  # of what a model can be asked, the first that a text fits


def explain(
    model: "LoadedModel",
    images: Any,
    text: Any,
    method: str | None,
    answer: str | None,
    options: dict[str, Any] | None,
    way: Way | None = None,
) -> Explanation:
    """`LoadedModel.explain`. `way`: what is asked; None: what the text asks of the model."""
    way = way or _way(model, text)
    question = QUESTIONS[way](model)
    (text,) = checked(question, text)
    given = list(images) if isinstance(images, list | tuple) else [images]
    if len(given) != len(question.images):
        raise UserError(f"explain: {len(given)} image(s) for {len(question.images)}: {CALLS[way]}")
    decoded = [Decoded(model.decoded(image)) for image in given]
    name = method or BEST
    explaining = _method(model, name, options)
    of_words = name if method is not None else words_method_for(model, name) or name
    batch = model.batch([(list(decoded), text)])
    place, label, probability = _answer(question, batch, answer)
    sign = -1 if label == LABELS.get(way, (None,))[0] else 1
    log_odds = model.task.explained().get(way)
    if log_odds is None:
        raise UserError(f"explain: the task {model.config.task!r} does not say what of {CALLS[way]} is explained (explained())")

    def score(output: ModelOutput) -> Tensor:
        values = log_odds(output.logits)
        if way == "fill":
            values = values[:: len(batch.targets["mlm_positions"])]  # of each text's [MASK]s the first
        return sign * (values if place is None else values[:, place])

    words = model.processors["text"].words(text)
    read_at = int(batch.targets["mlm_positions"][0]) if way == "fill" else 0
    asked = ExplanationInput(
        model=model.model,
        batch=batch,
        score=score,
        read_at=read_at,
        words=[places for _, places in words],
        autocast=model.autocast,
        normalization=model.processors["image"].normalization,
    )
    maps = _maps(explaining, asked, len(decoded))
    others = maps if of_words == name else _maps(_method(model, of_words, None), asked, len(decoded))
    has_words = all(each.words is not None for each in others)
    return Explanation(
        method=name,
        text=text,
        answer=label,
        probability=probability,
        words=tuple(word for word, _ in words) if has_words else (),
        words_method=of_words if has_words else "",
        images=tuple(ImageExplanation(_picture(image), *each) for image, *each in zip(given, maps, others, strict=True)),
    )


def _picture(source: Any) -> Tensor:
    """3 H W uint8: an image that was read before, in its own size, which a processor of images may reduce."""
    return source.pixels if isinstance(source, Decoded) else read_image(source, max_pixels=None)


def method_for(model: "LoadedModel", method: str | None) -> str | None:
    """The method by its name; where None is given, the best one that is installed and for this model. None where there is none,
    or the task can be asked nothing that is explained. Raises UserError where a method is given that is not for the model."""
    if method is not None:
        _method(model, method, None)
        return method
    for name in (BEST, BEST_OF_WORDS) if set(ORDER) & set(model.task.asked()) else ():
        with contextlib.suppress(UserError):
            _method(model, name, None)
            return name
    return None


def words_method_for(model: "LoadedModel", method: str | None) -> str | None:
    """The method whose maps of words go with it: of the best one's, which has none, the best one that has any."""
    return BEST_OF_WORDS if method == BEST and _gives_attentions(model) else method


def _maps(explaining: Callable[[ExplanationInput], Any], given: ExplanationInput, images: int) -> list[ExplanationMap]:
    maps = explaining(given)
    returned.explanation(explaining, maps, images, len(given.words))
    return list(maps)


def _gives_attentions(model: "LoadedModel") -> bool:
    return cast(Model, model.model).gives_attentions


def _way(model: "LoadedModel", text: Any) -> Way:
    """What a text asks of the model. Raises UserError where its task can be asked nothing that is explained."""
    can: list[Way] = [way for way in ORDER if way in model.task.asked()]
    if isinstance(text, str) and MASK in text and "fill" in can:
        return "fill"
    if not can:
        raise UserError(
            f"explain: the task {model.config.task!r} of {str(model.path)!r} can be asked nothing that is explained "
            f"({', '.join(ORDER)}: its asked() has none of them)"
        )
    return can[0]


def _method(model: "LoadedModel", name: str, options: dict[str, Any] | None) -> Callable[[ExplanationInput], Any]:
    """The method, built. Raises UserError where there is none of the name, or it is not for this model."""
    try:
        component = registry.get("explanation", name, "method")
    except UnknownComponentError as error:
        known = nearest(name, registry.names("explanation"))
        raise UserError(
            f"method: no explanation is registered as {name!r}{known}. A plugin is loaded by user_dir=FOLDER"
        ) from error
    if component.needs_attentions and not _gives_attentions(model):
        others = [each for each in registry.names("explanation") if not registry.get("explanation", each).needs_attentions]
        raise UserError(
            f"method={name!r}: the model {model.config.model!r} does not give its attention (gives_attentions is false), which "
            f"this method needs; others do without: {', '.join(others)}"
        )
    built: Callable[[ExplanationInput], Any] = registry.build("explanation", name, options, "options")
    return built


def _answer(question: Question[Any], batch: Batch, answer: str | None) -> tuple[int | None, str, float]:
    """The answer that is explained: its place among the logits (None: there is one), its name and its probability."""
    model, way = question.model, question.asks
    values = question.read(model.output(batch).logits)
    returned.asked(model.task, way, values, question.shape(batch))
    values = values.cpu()
    if not torch.isfinite(values).all():
        raise UserError("explain: a probability is not finite; load the model with precision='fp32'")
    if way in LABELS:
        log_odds = float(values[0].double())
        label = LABELS[way][log_odds > 0] if answer is None else _among(answer, LABELS[way], "answer")
        return None, label, float(torch.tensor(log_odds if label == LABELS[way][1] else -log_odds).double().sigmoid())
    if isinstance(question, FillQuestion):
        names, likely_V = question.names, values[0].masked_fill(~question.is_word_V, -1)
    else:
        names, likely_V = list(model.processors["answers"].spellings), values[0]
    found = int(likely_V.argmax()) if answer is None else names.index(_among(answer, names, "answer"))
    return found, names[found], float(values[0, found])


def _among(answer: str, names: Sequence[str], key: str) -> str:
    """Raises UserError where the model has no such answer."""
    if answer not in names:
        raise UserError(f"{key}={answer!r}: is no answer of this model{nearest(str(answer), list(names))}")
    return answer
