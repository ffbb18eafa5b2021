"""The vocabularies of words and answers: learned from the splits that a configuration names, where no file gives them."""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import ProcessorsConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.run_data import RunData
from pixelbert_plugin.errors import RunError, UserError
from pixelbert_plugin.interfaces import Stateful

VOCABULARY = {"text": "tokenizer", "answers": "answers"}  # the member of its state that a model's weights belong to


def build_processor(config: ProcessorsConfig, role: str) -> Any:
    """The processor of this role ("text", "image", "answers"). Raises ConfigError where the one chosen is of another."""
    return registry.build_component("processor", getattr(config, role), f"processors.{role}.params", use=f"processor of {role}")


def processor_states(processors: dict[str, Stateful]) -> dict[str, dict[str, Any]]:
    """By role, what a checkpoint must hold of the processors; those that have nothing to hold are left out."""
    return {role: state for role, processor in processors.items() if (state := processor.state_dict())}


def fit_text(text: Any, samples: Callable[[str], Mixture]) -> None:
    """Learn the vocabulary from the train split where it is not read."""
    if text.needs_fit:
        text.fit(text for part in samples("train").parts.values() for text in part.texts())


def fit_answers(answers: Any, samples: Callable[[str], Mixture], is_training: bool) -> None:
    """Count the vocabulary; of one from a file only the spellings, in a training's train split. `samples`: of the data sets
    whose answers count, by split."""
    if not answers.needs_fit and not is_training:
        return
    splits = answers.splits if answers.needs_fit else ["train"]
    parts = [part for split in splits for part in samples(split).parts.values()]
    main: Counter[str] = Counter()
    spellings: Counter[str] = Counter()
    for part in parts:
        given, answered = part.answer_counts()
        spellings.update(given)
        main.update(answered)
    if answers.needs_fit:
        if splits and not parts:
            raise UserError(
                "datasets: all are of only_known_answers, so that there is none to count answers in; add one such as vqa2, set "
                "dataset_config.NAME.only_known_answers=false, or give processors.answers.params.vocabulary"
            )
        answers.fit(main, spellings)
    else:
        answers.learn_spellings(spellings)
    if len(answers) < 2:
        raise UserError(
            f"processors.answers: the vocabulary is the single answer {answers.spellings[0]!r}, so that there is nothing to "
            "learn; lower min_occurrences or give a vocabulary with more"
        )


def vocabularies(
    config: ProcessorsConfig, roles: Collection[str], builders: dict[str, Builder], is_training: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Of `roles` the text and answer processors as a run would have them, and of those whose vocabulary cannot be had, why.

    Where nothing is trained, the checkpoint has the vocabularies that are learned: then such a processor is left out.
    """

    data = RunData(builders, {})
    found, reasons = {}, {}
    for role in [role for role in VOCABULARY if role in roles]:
        try:
            processor = build_processor(config, role)
            if is_training:
                fit_text(processor, data.samples) if role == "text" else fit_answers(processor, data.answering, True)
            if not processor.needs_fit:
                found[role] = processor
        except RunError as error:
            reasons[role] = str(error)
    return found, reasons


def answer_splits(config: ProcessorsConfig) -> list[str]:
    """The splits that a training counts its answers in."""
    answers = build_processor(config, "answers")
    return list(answers.splits) if answers.needs_fit else []


def take_states(processors: dict[str, Any], states: dict[str, dict[str, Any]], source: str) -> None:
    """Load what a checkpoint, `source`, holds of the processors. Raises UserError where it cannot be."""
    for role, state in states.items():
        if role in VOCABULARY:
            take_vocabulary(role, processors[role], state, source)
        else:
            processors[role].load_state_dict(state)


def take_vocabulary(name: str, processor: Any, saved: dict[str, Any], source: str) -> None:
    """Load a processor's state from a checkpoint, `source`. Raises UserError where it cannot, or the config names another."""
    named = {} if processor.needs_fit else processor.state_dict()
    try:
        processor.load_state_dict(saved)
        found = processor.state_dict()
    except RunError:
        raise
    except Exception as error:  # a processor reads what it likes, and a checkpoint may hold anything
        raise UserError(f"{source}: its processors.{name} cannot be read ({type(error).__name__}: {error})"[:500]) from error
    own, theirs = (_comparable(state.get(VOCABULARY[name])) for state in (named, found))
    if named and own != theirs:
        raise UserError(
            f"processors.{name}: the vocabulary that this config names is not the one in {source}, which its weights belong "
            f"to; leave processors.{name}.params.vocabulary out, or name the one it was trained with"
        )


def _comparable(vocabulary: Any) -> Any:
    """Answers without their punctuation, which earlier versions saved as a file had it."""
    if not isinstance(vocabulary, list):
        return vocabulary
    return ["".join(filter(str.isalnum, str(answer).lower())) for answer in vocabulary]
