"""What every builder offers: `samples(split)`. A data set is one decorated subclass (see docs/extending.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelbert_plugin.types import Sample


@dataclass(kw_only=True)
class BuilderConfig:
    on_bad_image: Literal["error", "skip"] = "error"  # an unreadable image: end the run, or leave its pairs out and count


class Builder:
    """Base of builders. `samples` returns the pairs of a split; the sequence may make each Sample when it is asked for."""

    Config = BuilderConfig

    def __init__(self, config: BuilderConfig, data_dir: Path):
        self.config = config
        self.data_dir = data_dir

    def samples(self, split: str) -> Sequence[Sample]:
        """All pairs of `split` ("train", "val", "test"), in a fixed order with unique sample ids."""
        raise NotImplementedError
