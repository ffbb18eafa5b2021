"""Tried before update 1, so that it is not found out hours later: the files of every split, one batch of each through the
model, the predictions, the metrics, and the metric that chooses the best checkpoint.

As Lightning's sanity check. It draws nothing that training draws, and leaves no trace in the model. A few samples of different
images are enough, and one text is made as long as the tokenizer lets it be.
"""

import dataclasses
import logging
import re
from collections.abc import Iterator
from functools import partial
from typing import cast

import numpy as np
import torch

from pixelbert_plugin.data.files import missing_files
from pixelbert_plugin.data.images import why_no_file
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.distributed.parallel import share_buffers, whole
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.evaluation.baseline import Baseline
from pixelbert_plugin.evaluation.evaluator import check_monitor, evaluate
from pixelbert_plugin.evaluation.retrieval import evaluate_matrix, score_all_pairs
from pixelbert_plugin.evaluation.split_evaluator import has_labels
from pixelbert_plugin.parts import Parts
from pixelbert_plugin.registry import returned
from pixelbert_plugin.tasks.base import MatchingTask
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)
NUM_SAMPLES = 4  # of each data set and split
OTHERS_PER_NEGATIVE = 40  # samples among which a negative is looked for: many have the image, or the text, of others
REMEDY = "training.sanity_check=false trains without this try"


def try_all(parts: Parts, baseline: Baseline, monitor: str) -> None:
    """Raise UserError where a split's image files are missing, or where one of its batches cannot be evaluated."""
    for mixture in parts.data.splits.values():
        parts.job.processes.on_main(partial(require_images, mixture))
    try_processors(parts)
    metrics: dict[str, float] = {}
    was_training = parts.model.training
    parts.model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        for split, mixture in parts.data.splits.items():
            for name, samples in mixture.parts.items():
                metrics |= try_split(parts, baseline, split, name, few(samples, wanted_kind(monitor)))
    parts.model.train(was_training)
    if "val" in parts.data.splits:
        # metrics by folds of the gallery come with all of its images alone
        check_monitor(re.sub(r"/\d+_images_", "/", monitor), metrics)


def try_processors(parts: Parts) -> None:
    """Whether what they return is what the rest takes."""
    first = next(iter(parts.data.splits.values()))[0]
    text = parts.processors["text"]
    returned.text(text, first.text)
    for processor in parts.processors.values():
        returned.state(processor)


def try_split(parts: Parts, baseline: Baseline, split: str, name: str, samples: list[Sample]) -> dict[str, float]:
    """One batch of a data set's split: as an evaluation does it, or, of the training split, through the loss."""
    whole_split, processes = parts.data.splits[split], parts.job.processes
    others = negatives_of(whole_split.parts[name], parts.task.num_negatives) if split == "train" else []
    mixture = Mixture(split, {name: [*samples, *others]}, whole_split.on_bad_image)
    training = dataclasses.replace(parts.training, num_workers=0, bucket_by_size=False, dataset_weights={})
    loader = dataclasses.replace(parts.loaders, training=training).of(mixture)
    try:
        if split == "train":
            through_the_loss(parts, loader, len(samples))
            return {}
        baseline.learn_for(mixture)
        if parts.task.scores_all_pairs:
            task = cast(MatchingTask, parts.task)
            matrix = score_all_pairs(parts.model, task, loader, len(samples), parts.precision, processes)
            metrics = processes.on_main(lambda: evaluate_matrix(task, loader, matrix).metrics)
        else:
            with_loss = split == "val" and has_labels(whole_split.parts[name], parts.data.splits.get("train"))
            evaluation = evaluate(
                parts.model, parts.task, loader, len(samples), parts.precision, processes, with_loss=with_loss
            )
            metrics = evaluation.metrics
            if parts.task.predictions is not None and evaluation.predicted:
                returned.predictions(parts.task, parts.task.predictions(evaluation.predicted))
    except UserError as error:
        error.add(f"the {split} split of {name}, tried before training; {REMEDY}")
        raise
    return {f"{split}/{name}/{metric}": value for metric, value in metrics.items()}


def negatives_of(samples: Samples, num_negatives: int) -> list[Sample]:
    """Samples evenly over the split, for the texts of other images that the task puts beside a sample's own."""
    wanted = min(len(samples), num_negatives * OTHERS_PER_NEGATIVE)
    return [samples[index * len(samples) // wanted] for index in range(wanted)]


def through_the_loss(parts: Parts, loader: Loader, count: int) -> None:
    """The first `count` samples of the loader's."""
    share_buffers(parts.model, parts.job.processes)
    with whole(parts.model):
        batches = [np.arange(count)] if parts.job.processes.is_main else []
        for batch in loader.read(batches):
            with parts.precision.autocast():
                losses = parts.task.loss(parts.model(batch), batch)
            returned.losses(parts.task, losses, parts.task.counts(batch))


def few(samples: Samples, kind: tuple[str, str] | None) -> list[Sample]:
    """Samples of different images, evenly over the split; of them one of the `kind` of the monitored metric, and one whose
    text is as long as can be."""
    first_I = np.unique(samples.images_M, return_index=True)[1]
    chosen = [int(first_I[index * len(first_I) // NUM_SAMPLES]) for index in range(NUM_SAMPLES)]
    found = [samples[index] for index in dict.fromkeys(chosen)]
    if kind is not None:
        found += [sample for sample in _first(samples, kind) if sample not in found]
    longest = f"{found[0].text} " * 1000
    return [dataclasses.replace(found[0], text=longest), *found[1:]]


def _first(samples: Samples, kind: tuple[str, str]) -> Iterator[Sample]:
    group, value = kind
    for sample in samples:
        if sample.groups.get(group) == value:
            yield sample
            return


def wanted_kind(monitor: str) -> tuple[str, str] | None:
    """Group and kind of a metric such as val/vqa2/accuracy[answer_type=number]."""
    found = re.search(r"\[(.*?)=(.*)\]$", monitor)
    return (found[1], found[2]) if found else None


def require_images(mixture: Mixture) -> None:
    """Look whether the image files are there: raise UserError that names the first one missing.

    Where `on_bad_image` says skip, a warning tells how many are.
    """
    for name, samples in mixture.parts.items():
        files = samples.image_paths()
        missing = missing_files(files)
        if not missing:
            continue
        if mixture.on_bad_image[name] == "skip":
            logger.warning("%s split of %s: %d of %d images are missing", mixture.split, name, len(missing), len(files))
            continue
        if len(missing) == len(files) > 1:
            raise UserError(
                f"{missing[0]}: {why_no_file(missing[0])}, nor any of the {len(files)} images of the {mixture.split} split of "
                f"{name}; unpack them there, or correct env.data_dir; {REMEDY}"
            )
        of = samples[samples.first_with_image(files.index(missing[0]))].sample_id
        others = f" (and {len(missing) - 1} more of the {mixture.split} split are missing)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}: {why_no_file(missing[0])}{others}; needed by sample {of} of {name}. Restore the file, or set "
            f"dataset_config.{name}.on_bad_image=skip; {REMEDY}"
        )
