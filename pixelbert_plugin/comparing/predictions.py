"""Files of predictions and what is true → what each sample adds to each metric.

The truth is that of the runs' data set, read as the run itself reads it: its annotation files must be there.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from pixelbert_plugin import registry
from pixelbert_plugin.comparing.bootstrap import Terms
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.run_data import build_builders
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.metrics.nlvr2 import has_sentences, sentence_group
from pixelbert_plugin.metrics.recall import RECALL_AT, ranks
from pixelbert_plugin.tasks.base import Result, Task
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)
Measures = dict[str, list[Terms]]  # by metric, the terms of each of its ratios


@dataclass(frozen=True)
class Scored:
    """A file of predictions, by what it is asked of: a sample's id, an image or a text."""

    results: dict[str, Result]  # with what was predicted
    members: dict[str, Sequence[Hashable]]  # images, for clusters
    main: dict[str, float]  # how right each is, for examples; {} where the split has no truth
    measures: Callable[[list[str]], Measures]  # of these, in this order
    is_whole: bool = False  # whether a part of it cannot be compared: ranks among all


def read_truth(config: RunConfig, file: str) -> Mixture:
    """The samples that the predictions named `file`, as "val_vqa2", are of. Raises UserError where no split is meant, or its
    files are not there."""
    builders = build_builders(config.datasets, config.dataset_config, config.env)
    for dataset, builder in builders.items():
        for split in ("val", "test", "train"):
            if file == _name_of(builder, split, dataset):
                return Mixture.build({dataset: builder}, split)
    raise UserError(f"{file}: is of none of the splits of {', '.join(builders)}, as the run's configuration has them")


def _name_of(builder: Builder, split: str, dataset: str) -> str | None:
    try:
        return f"{builder.source_split(split)}_{dataset}".replace("/", "_") if builder.has_split(split) else None
    except UserError:  # of a split that this run did not use
        return None


def read_scored(path: Path, config: RunConfig, truth: Mixture) -> Scored:
    """Raises UserError where the file is not one of this split's, or the task cannot read it back."""
    task: type[Task] = registry.get("task", config.task, "task")
    by_id = {str(sample.sample_id): sample for sample in truth}
    try:
        if path.suffix == ".safetensors":
            return _matrix(path, by_id)
        if task.read_predictions is None:
            raise UserError(f"{path}: the task {config.task!r} cannot read it back (read_predictions, docs/extending.md)")
        options = registry.configure("task", config.task, config.task_config.get(config.task), f"task_config.{config.task}")
        results = task.read_predictions(options, path.read_text(encoding="utf-8"), by_id)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except KeyError as error:
        raise UserError(f"{path}: {error} is no sample of the {truth.split} split as this configuration has it") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no file of predictions of the task {config.task!r} ({error})") from error
    found = {str(result.sample.sample_id): result for result in results}
    if len(found) < len(results):
        raise UserError(f"{path}: has several predictions of one sample")
    terms = cast(Callable[[list[Result]], dict[str, Terms]], task.terms or mean_scores)

    def measures(keys: list[str]) -> Measures:
        return {metric: [each] for metric, each in terms([found[key] for key in keys]).items()}

    keys = list(found)
    main = terms(results).get(_main_metric(task, terms(results[:1])), {})
    return Scored(
        results=found,
        members={key: _members(result.sample) for key, result in found.items()},
        main={keys[place]: above / below if below else 0.0 for place, (above, below) in main.items()},
        measures=measures,
    )


def mean_scores(results: list[Result]) -> dict[str, Terms]:
    """Of each score the mean, over all samples and by each kind: `accuracy[answer_type=number]`."""
    found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for place, result in enumerate(results):
        for name, score in result.scores.items():
            found[name][place] = (float(score), 1.0)
            for group, kind in result.sample.groups.items():
                found[f"{name}[{group}={kind}]"][place] = (float(score), 1.0)
    return dict(sorted(found.items(), key=lambda item: ("[" in item[0], item[0])))


def _main_metric(task: type[Task], terms: dict[str, Any]) -> str:
    """Of a task whose main metric depends on its options, the first that it has."""
    named = getattr(task, "main_metric", None)
    return named if isinstance(named, str) and named in terms else next(iter(terms), "")


def _members(sample: Sample) -> list[Hashable]:
    """The images that a sample shares with others; of NLVR2 also the sentence, which is asked of several pairs of a set."""
    images: list[Hashable] = [("image", image) for image in sample.image_ids]
    if len(images) > 1 and has_sentences([str(sample.sample_id)]):
        images.append(("sentence", sentence_group(str(sample.sample_id))))
    return images


def _matrix(path: Path, by_id: dict[str, Sample]) -> Scored:
    """Scores of every image with every text: each is asked for the other (metrics/recall.py)."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        scores_IT, metadata = file.get_tensor("scores"), file.metadata()
    image_ids, text_ids = (json.loads(metadata[name]) for name in ("image_ids", "text_ids"))
    row_of = {image: row for row, image in enumerate(image_ids)}
    samples = [by_id[str(text)] for text in text_ids]
    image_of_text_T = np.array([row_of[sample.image_ids[0]] for sample in samples])
    ranks_I, ranks_T = ranks(scores_IT, image_of_text_T)
    images, texts = ([f"{what} {each}" for each in ids] for what, ids in (("image", image_ids), ("text", text_ids)))
    rank = dict(zip([*images, *texts], [*ranks_I.tolist(), *ranks_T.tolist()], strict=True))
    owner = {**dict(zip(images, image_ids, strict=True))}
    owner |= {key: sample.image_ids[0] for key, sample in zip(texts, samples, strict=True)}
    results = {}
    first = {int(row): samples[place] for place, row in reversed(list(enumerate(image_of_text_T)))}
    for row, key in enumerate(images):
        found = int(scores_IT[row].argmax())
        truth = samples[found].text if image_of_text_T[found] == row else first[row].text
        results[key] = Result(first[row], samples[found].text, truth)
    for column, key in enumerate(texts):
        found = int(scores_IT[:, column].argmax())
        results[key] = Result(samples[column], f"image {image_ids[found]}", f"image {owner[key]}")

    def measures(keys: list[str]) -> Measures:
        sides = {"image_to_text": "image ", "text_to_image": "text "}
        ranked = {
            side: {place: rank[key] for place, key in enumerate(keys) if key.startswith(start)} for side, start in sides.items()
        }

        def recall(side: str, at: int) -> Terms:
            return {place: (float(found <= at), 1.0) for place, found in ranked[side].items()}

        measured: Measures = {"mean_r@1": [recall(side, 1) for side in sides]}
        for side in sides:
            measured |= {f"{side}_r@{at}": [recall(side, at)] for at in RECALL_AT}
            measured[f"{side}_mean_rank"] = [{place: (float(found), 1.0) for place, found in ranked[side].items()}]
        return measured

    return Scored(
        results=results,
        members={key: [image] for key, image in owner.items()},
        main={key: float(found <= 1) for key, found in rank.items()},
        measures=measures,
        is_whole=True,
    )
