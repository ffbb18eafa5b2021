"""The data of a run: the builders of its data sets, and their samples by split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import EnvConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.known_answers import answering, with_known_answers
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.interfaces import AnswersProcessor


@dataclass(frozen=True)
class RunData:
    """Builders by data set, and the samples of the splits that `run_type` names."""

    builders: dict[str, Builder]
    splits: dict[str, Mixture]

    @classmethod
    def of(cls, builders: dict[str, Builder], splits: Iterable[str]) -> "RunData":
        """Read every one of the splits. Raises UserError where one is empty or wrong."""
        return cls(builders, {split: Mixture.build(builders, split) for split in splits})

    def samples(self, split: str) -> Mixture:
        """The samples of any split; one that `run_type` does not name is read now. Raises UserError where it cannot be."""
        return self.splits[split] if split in self.splits else Mixture.build(self.builders, split)

    def answering(self, split: str) -> Mixture:
        """`samples` without data sets of only_known_answers: what answers are counted in. Empty where all are so."""
        builders, whole = answering(self.builders), self.splits.get(split)
        if len(builders) == len(self.builders):
            return self.samples(split)
        own = {name: part for name, part in whole.parts.items() if name in builders} if whole else {}
        if whole and own:
            return Mixture(split, own, whole.on_bad_image)
        return Mixture.build(builders, split) if builders else Mixture(split, {})

    def with_known_answers(self, answers: AnswersProcessor | None, cache_dir: Path | None) -> "RunData":
        """The same, but that data sets of only_known_answers are trained on with questions whose answers are known to
        `answers`, the processor with its vocabulary (None: the task has none)."""
        if answers is None or "train" not in self.splits or not self.splits["train"].only_known_answers:
            return self
        known = with_known_answers(self.splits["train"], self.builders, answers, cache_dir)
        return RunData(self.builders, {**self.splits, "train": known})

    def single(self, split: str, dataset: str) -> Mixture:
        """One data set of a split of `run_type`."""
        mixture = self.splits[split]
        return Mixture(split, {dataset: mixture.parts[dataset]}, mixture.on_bad_image)

    def own_name(self, split: str, dataset: str) -> str:
        """ "test-dev/vqa2" for the split "test" where `use` chose so: results and files of two test sets must not mix."""
        return f"{self.builders[dataset].source_split(split)}/{dataset}"


def build_builders(datasets: Iterable[str], options: Mapping[str, Any], env: EnvConfig) -> dict[str, Builder]:
    """The builder of each of `datasets`, `options` being by name. Raises UserError for an unknown one, or wrong options."""
    shared: dict[str, Any] = {"data_dir": Path(env.data_dir), "cache_dir": env.cache}
    return {name: registry.build("builder", name, options.get(name), f"dataset_config.{name}", **shared) for name in datasets}
