"""Data sets that add questions to another's and no answers: `dataset_config.NAME.only_known_answers`. M samples.

Visual Genome's pairs are added to VQA 2.0's so (Teney et al. 2018, "Tips and Tricks for Visual Question Answering"): the
vocabulary, its spellings and the question-only baselines are VQA's own, and of the added questions those are trained on whose
answer the vocabulary has. That is known once the vocabulary is, so not to a builder.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.cache import cached
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.interfaces import AnswersProcessor
from pixelbert_plugin.registry.schema import ConfigError

logger = logging.getLogger(__name__)


def answering(builders: Mapping[str, Builder]) -> dict[str, Builder]:
    """The data sets whose own answers count."""
    return {name: builder for name, builder in builders.items() if not builder.config.only_known_answers}


def is_known_M(samples: Samples, answers: AnswersProcessor) -> np.ndarray:
    """M bool: whether the vocabulary has one of a question's answers."""
    return samples.is_answered_M(lambda answer: answers.covers((answer,)))


def with_known_answers(
    mixture: Mixture, builders: Mapping[str, Builder], answers: AnswersProcessor, cache_dir: Path | None
) -> Mixture:
    """The mixture without questions that `only_known_answers` leaves out, which are counted and told. Raises ConfigError where
    none is left of a data set."""
    parts = dict(mixture.parts)
    for name, samples in mixture.parts.items():
        if name in mixture.only_known_answers:
            parts[name] = _known(mixture.split, builders[name], samples, answers, cache_dir)
    return Mixture(mixture.split, parts, mixture.on_bad_image, mixture.only_known_answers)


def _known(split: str, builder: Builder, samples: Samples, answers: AnswersProcessor, cache_dir: Path | None) -> Samples:
    wanted_M = is_known_M(samples, answers)
    kept, total = int(wanted_M.sum()), len(samples)
    if not kept:
        raise ConfigError(
            f"{builder.key}.only_known_answers",
            f"true, and none of the {total:,} questions of {split} has an answer of the vocabulary ({len(answers):,} answers); "
            "set it to false, or leave the data set out of datasets",
        )
    logger.info(
        "%s/%s: %s of %s questions have an answer of the vocabulary; the other %s are left out",
        *(split, builder.name, f"{kept:,}", f"{total:,}", f"{total - kept:,}"),
    )
    if kept == total:
        return samples
    chosen = hashlib.blake2b(np.packbits(wanted_M).tobytes(), digest_size=16).hexdigest()
    options = ["known answers", str(samples.root), samples.digests(), samples.digest_of_files(), chosen]
    return Samples(cached(cache_dir, builder.name, options, [], lambda: samples.kept(wanted_M)), samples.root)
