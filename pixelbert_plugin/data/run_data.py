"""The data of a run: the builders of its data sets, and their samples by split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.data.mixture import Mixture


@dataclass(frozen=True)
class RunData:
    """Builders by data set, and the samples of the splits that `run_type` names."""

    builders: dict[str, Builder]
    splits: dict[str, Mixture]

    @classmethod
    def of(cls, config: RunConfig) -> "RunData":
        """Read every split of `run_type`. Raises UserError where one is empty or wrong."""
        builders = build_builders(config)
        return cls(builders, {split: Mixture.build(builders, split) for split in config.splits()})

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


def build_builders(config: RunConfig) -> dict[str, Builder]:
    """The builder of each of `datasets`. Raises UserError for one that is not registered or has wrong options."""
    shared: dict[str, Any] = {"data_dir": Path(config.env.data_dir), "cache_dir": config.env.cache}
    return {
        name: registry.build("builder", name, config.dataset_config.get(name), f"dataset_config.{name}", **shared)
        for name in config.datasets
    }
