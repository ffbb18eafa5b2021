"""The data of a run: the builders of its data sets, and their samples by split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import EnvConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.mixture import Mixture


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
