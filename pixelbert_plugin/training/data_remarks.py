"""What is told of a run's data: before time is spent on it, and where a training goes on with other data than it began with."""

import itertools
import logging
from collections import Counter
from typing import Any

from pixelbert_plugin.config.options import ProcessorsConfig
from pixelbert_plugin.data.fingerprint import Fingerprint, changes
from pixelbert_plugin.data.survey import seen_in_training, survey
from pixelbert_plugin.data.vocabularies import build_processor
from pixelbert_plugin.parts import Parts

logger = logging.getLogger(__name__)


def tell_survey(parts: Parts) -> None:
    """Say what of the data is cut, left out or can never be right, before time is spent on it."""

    def tell() -> None:
        splits = parts.data.splits
        trained: set[str] = set()
        if "train" in splits and len(splits) > 1:
            trained.update(*(samples.image_names() for samples in splits["train"].parts.values()))
        for split, mixture in splits.items():
            for name, samples in mixture.parts.items():
                only_known = name in mixture.only_known_answers
                remarks = survey(samples, parts.processors["text"], parts.processors.get("answers"), only_known)
                for remark in itertools.chain(remarks, () if split == "train" else seen_in_training(samples, trained)):
                    line = f"{split}/{name}: {remark.what}: {remark.detail}"
                    if remark.is_warning:
                        logger.warning("%s", line)
                    elif remark.what == "answer vocabulary":
                        parts.job.console.out(line, highlight=False)

    parts.job.processes.on_main(tell)


def tell_changes(parts: Parts, content: dict[str, Any], now: dict[str, Fingerprint], options: ProcessorsConfig) -> None:
    """Warn where the data is not as it was when the checkpoint of this `content` was saved; training goes on all the same.

    `options`: what the processors were built from.
    """
    former = content.get("data")
    former = former if isinstance(former, dict) else {}
    for key in sorted(former.keys() & now.keys()):
        split, name = key.split("/", 1)
        found = changes(former[key], now[key]) if isinstance(former[key], dict) else []
        if found:
            logger.warning(
                "the %s split of %s changed since the checkpoint was saved (%s): training goes on with it as it is now",
                *(split, name, ", ".join(found)),
            )
        if found and split == "train" and "answers" in parts.processors:
            tell_new_answers(parts, options)


def tell_new_answers(parts: Parts, options: ProcessorsConfig) -> None:
    """Warn of answers that a vocabulary counted now would hold and the checkpoint's lacks: the head has no place for them."""
    fresh = build_processor(options, "answers")
    if fresh.needs_fit:
        data_sets = (samples for split in fresh.splits for samples in parts.data.answering(split).parts.values())
        main: Counter[str] = Counter()
        for samples in data_sets:
            main.update(samples.answer_counts()[1])
        fresh.fit(main, ())
        missing = sorted(set(fresh.answers) - set(parts.processors["answers"].answers))
        if missing:
            logger.warning(
                "%d answers of the changed data are not among the checkpoint's %d (such as %s): they cannot be learned; start "
                "anew, from these weights by checkpoint.pretrained, to have them",
                *(len(missing), len(parts.processors["answers"].answers), ", ".join(map(repr, missing[:3]))),
            )


def tell_features(parts: Parts) -> None:
    """Say what the features of all images will take on the disk, where they are kept (training.cache_features)."""
    features = parts.loaders.features

    def tell() -> None:
        images = [
            path for mixture in parts.data.splits.values() for part in mixture.parts.values() for path in part.image_paths()
        ]
        told = features.estimate(images) if features is not None else None
        if told is not None:
            parts.job.console.out(told, highlight=False)

    parts.job.processes.on_main(tell)
