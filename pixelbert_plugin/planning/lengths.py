"""How much data there is: of the files where they are, else the official numbers. B samples, I images."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.images import BadImageError, upright_size
from pixelbert_plugin.data.known_answers import with_known_answers
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.run_data import build_builders
from pixelbert_plugin.data.sampler import epoch_size
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.interfaces import AnswersProcessor
from pixelbert_plugin.planning.stand_ins import Assumptions

PHOTOGRAPH = (480, 640)  # height and width in pixels of most of COCO's files
NUM_MEASURED = 100  # images of a data set whose size is read

# samples and images where datasets/*/defaults.yaml does not have both. Visual Genome: visualgenome.org, before images of COCO's
# and Flickr30K's val and test are left out; of its questions about those whose answer VQA's vocabulary has (Teney et al. 2018,
# "Tips and Tricks for Visual Question Answering"). VQA 2.0's subsets: by their share of val's images
OFFICIAL = {
    ("visual_genome", "train"): (5_400_000, 108_077),
    ("visual_genome_qa", "train"): (485_000, 108_077),
    ("vqa2", "trainval"): (443_757 + 214_354 * 35_504 // 40_504, 118_287),
    ("vqa2", "minival"): (214_354 * 5_000 // 40_504, 5_000),
    ("vqa2", "minitest"): (214_354 * 5_000 // 40_504, 5_000),
}


@dataclass(frozen=True)
class Split:
    """A data set's split."""

    samples: int
    groups: float  # runs of samples that share their images and stand together: the CNN runs once for each
    images: int | None  # None: unknown


@dataclass(frozen=True)
class Lengths:
    """The data sets of a run by split, and the size of their images."""

    splits: dict[str, dict[str, Split]]
    image_size: tuple[int, int] | None  # height and width in pixels, of the data's files; None: not there
    builders: dict[str, Builder]

    def epoch(self, weights: dict[str, float]) -> tuple[int, float]:
        """Samples of an epoch of training, and how many groups they are."""
        samples, groups = 0, 0.0
        for name, split in self.splits.get("train", {}).items():
            own = epoch_size(split.samples, weights.get(name, 1.0))
            samples += own
            groups += own * split.groups / split.samples
        return samples, groups

    def with_known_answers(self, answers: AnswersProcessor | None, limit: int | None) -> "Lengths":
        """The same, without what training leaves out of data sets of only_known_answers, where their files are here. `answers`:
        the processor with its vocabulary (None: the task has none); one of stand-ins knows no answer."""
        train = dict(self.splits.get("train", {}))
        for name, builder in self.builders.items():
            whole = _read(name, builder, "train") if answers and builder.config.only_known_answers and name in train else None
            if whole is not None and answers:
                with suppress(UserError):
                    train[name] = _measured(with_known_answers(whole, self.builders, answers, builder.cache_dir), limit)
        return replace(self, splits={**self.splits, "train": train} if train else self.splits)


def measure(config: RunConfig, assumed: Assumptions) -> Lengths:
    """The lengths of the splits that `run_type` names. A data set that is neither here nor known is left out."""
    builders = build_builders(config.datasets, config.dataset_config, config.env)
    limit = config.training.texts_per_image
    splits: dict[str, dict[str, Split]] = {split: {} for split in config.splits()}
    image_size = None
    unread = []
    for name, builder in builders.items():
        for split, found in splits.items():
            samples = _read(name, builder, split)
            if samples is not None:
                found[name] = _measured(samples, limit)
                image_size = image_size or _image_size(samples)
            elif (official := _official(name, builder, split, limit)) is not None:
                found[name] = official
                unread.append(f"{name}'s {split}: {official.samples:,} samples")
    for name, of_train in splits.get("train", {}).items():
        if of_train.images is None and limit and limit > 1:
            assumed.append(f"{limit} texts of {name} always share their images, as many as training.texts_per_image lets")
    if unread:
        assumed.append(f"the official numbers, since the files are not in env.data_dir: {'; '.join(unread)}")
    return Lengths(splits, image_size, builders)


def _measured(samples: Mixture, limit: int | None) -> Split:
    sizes = np.bincount(samples.images_M)
    return Split(len(samples), int(np.ceil(sizes / limit).sum()) if limit else len(sizes), len(sizes))


def _read(name: str, builder: Builder, split: str) -> Mixture | None:
    """The split's samples; None where its files are not there, or where it has none."""
    try:
        if not all(path.is_file() for _, path in builder.files(split)):
            return None
        return Mixture.build({name: builder}, split)
    except UserError:
        return None


def _official(name: str, builder: Builder, split: str, limit: int | None) -> Split | None:
    if not builder.has_split(split):
        return None
    try:
        own = builder.source_split(split)
    except UserError:
        return None
    counts = builder.config.counts.get(own, {})
    if not counts:  # a configuration that says so is of other files
        return None
    samples, images = OFFICIAL.get((name, own), (counts.get("samples"), counts.get("images")))
    if samples is None:
        return None
    if images is None:  # as many texts to each as are put together
        return Split(samples, samples / (limit or 1), None)
    runs = math.ceil(round(samples / images) / limit) if limit else 1  # of each image's texts
    return Split(samples, min(samples, images * runs), images)


def _image_size(samples: Mixture) -> tuple[int, int] | None:
    """Height and width of the image that is the middle one by area, of a few of the split's."""
    found: list[tuple[int, int]] = []
    for index in np.linspace(0, len(samples) - 1, NUM_MEASURED).astype(int):
        try:
            found.append(upright_size(samples[int(index)].images[0]))
        except (BadImageError, OSError):
            continue
    found.sort(key=lambda size: size[0] * size[1])
    return found[len(found) // 2] if found else None
