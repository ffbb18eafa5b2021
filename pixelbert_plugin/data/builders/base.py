"""What every builder offers: `samples(split)`. A data set is one decorated subclass (see docs/extending.md)."""

import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from string import Formatter
from typing import Any, Literal

from pixelbert_plugin import registry
from pixelbert_plugin.data.blocks import Arrays
from pixelbert_plugin.data.cache import cached
from pixelbert_plugin.data.files import require_files
from pixelbert_plugin.data.samples import Samples, collect
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError, nearest
from pixelbert_plugin.types import Sample

logger = logging.getLogger(__name__)

LONGEST_NAME = 255  # characters of a file's name, on most file systems


@dataclass(kw_only=True)
class BuilderConfig:
    on_bad_image: Literal["error", "skip"] = "error"  # an unreadable image: end the run, or leave its pairs out and count
    outside_images: bool = False  # whether annotation files may name images outside their folder: absolute, or with ..
    use: dict[str, str] = field(default_factory=dict)  # the data set's own split for train, val or test: {val: minival}
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # published numbers by split, for pixelbert-data check
    only_known_answers: bool = False  # learn only from questions whose answer the others' vocabulary has; true adds none to it


class SplitsConfig(BuilderConfig):
    """Base of a SplitsBuilder's options. Not a dataclass, so that `splits` stands where each data set's own class has it."""

    splits: dict[str, list[Any]]  # a split's sources


class Builder:
    """Base of builders. `samples` gives the pairs of a split, as a list or one by one: they are kept as data/samples.py does,
    which costs no data-loader worker memory."""

    Config = BuilderConfig
    defaults = ""  # the YAML that names the official files, for errors
    remedy = ""  # where the files are to be had, for errors

    def __init__(self, config: BuilderConfig, data_dir: Path, cache_dir: Path | None = None):
        self.config, self.data_dir, self.cache_dir = config, data_dir, cache_dir
        if config.use and not self.own_splits():
            raise ValueError("use: this data set has no splits of its own to choose from")

    def own_splits(self) -> list[str]:
        """The data set's own splits, for `use` to choose from; [] where the builder has but train, val and test."""
        return []

    def source_split(self, split: str) -> str:
        """The data set's own split that serves as `split`: as `use` says, else the one of the same name."""
        own, known = self.config.use.get(split, split), self.own_splits()
        if own not in known and split in self.config.use:
            raise ConfigError(f"{self.key}.use.{split}", f"{own!r}: no such split{nearest(own, known)}")
        if known and own not in known:
            raise ConfigError(f"{self.key}.splits.{own}", f"no such split (known: {', '.join(known)}); {self.remedy}")
        return own

    def has_split(self, split: str) -> bool:
        """False where the data set has no such split and a mixture does without it."""
        return True

    @abstractmethod  # which the registry looks for
    def samples(self, split: str) -> Iterable[Sample]:
        """All pairs of `split` ("train", "val", "test"), in a fixed order with unique sample ids."""
        raise NotImplementedError(f"{type(self).__name__} has no samples(split)")

    def files(self, split: str) -> list[tuple[str, Path]]:
        """The annotation files that `split` is read from, each with the config key that names it."""
        return []

    def count(self, split: str, samples: Samples) -> dict[str, int]:
        """What `counts` may hold of a split, as it is in the files."""
        return {"samples": len(samples), "images": samples.num_images}

    def cached_samples(
        self,
        options: Any,
        files: list[tuple[str, Path]],
        read: Callable[[], Iterable[Sample]],
        what: str = "",
        left_out: Iterable[Path] = (),
    ) -> Samples:
        """The samples that `read` gives, by way of the cache: read from `files` once, until one of them or `options` (JSON, all
        else that they depend on) changes. Raises UserError for missing files. `left_out`: images without a text, known in the
        end; `what` names the samples in errors."""
        arrays = self.cached(options, files, lambda: collect(read(), what or self.key, self.data_dir, left_out))
        return Samples(arrays, self.data_dir)

    def cached(self, options: Any, files: list[tuple[str, Path]], make: Callable[[], Arrays]) -> Arrays:
        """The arrays that `make` reads from `files`, by way of the cache. Raises UserError for missing files."""
        require_files(files, self.remedy)
        return cached(self.cache_dir, self.name, options, [path for _, path in files], make)

    def image_name(self, name: Any, path: Path, index: object, unit: str = "entry") -> Any:
        """The name of an image file, or a part of it, as record `index` of the annotation file `path` has it. Raises UserError
        where it leads out of the folder of images. (Links in that folder may lead wherever they like.)"""
        if isinstance(name, str) and not self.config.outside_images and leads_outside(PurePath(name)):
            raise UserError(
                f"{path}: {unit} {index}: image {name!r} is outside the folder of images; correct it, or allow it with "
                f"{self.key}.outside_images=true"
            )
        return name

    @property
    def name(self) -> str:
        """As it is registered: the data set's name."""
        return registry.place_of(self.config).name

    @property
    def key(self) -> str:
        """Where its options stand, for errors: `dataset_config.<name>`."""
        return registry.key_of(self.config)

    def official(self, key: str, path: str) -> Path:
        """The file that the option `key` names, relative to env.data_dir. Raises ConfigError where it names none."""
        if not path:
            raise ConfigError(key, f"is not set; include {self.defaults}, which names the files")
        return self.data_dir / path


class SplitsBuilder(Builder):
    """A data set whose `splits` name official files. A subclass reads one of them; its samples are cached."""

    config: SplitsConfig
    file_fields: tuple[str, ...] = ()  # of a source of `splits`: the fields that name annotation files; None: it has none

    def own_splits(self) -> list[str]:
        return list(self.config.splits)

    def source_split(self, split: str) -> str:
        if not self.config.splits:
            raise ConfigError(f"{self.key}.splits", f"is empty; include {self.defaults}, which names the files")
        return super().source_split(split)

    def has_split(self, split: str) -> bool:
        """False for a split that is set to nothing: `splits: {val: []}`."""
        return self.config.splits.get(self.config.use.get(split, split)) != []

    def samples(self, split: str) -> Samples:
        own = self.source_split(split)
        left_out: list[Path] = []
        options = [own, self.options(own), self.config.outside_images]
        what = f"{self.key}.splits.{own}"
        return self.cached_samples(options, self.source_files(own), lambda: self.read(own, left_out), what, left_out)

    def files(self, split: str) -> list[tuple[str, Path]]:
        return self.source_files(self.source_split(split))

    def source_files(self, own: str) -> list[tuple[str, Path]]:
        """`files` of the split `own` of `splits`."""
        return [
            (key := f"{self.key}.splits.{own}[{index}].{name}", self.official(key, getattr(source, name)))
            for index, source in enumerate(self.config.splits[own])
            for name in self.file_fields
            if getattr(source, name) is not None
        ]

    def options(self, own: str) -> Any:
        """What the samples of the split `own` depend on besides its files, as JSON."""
        return [asdict(source) for source in self.config.splits[own]]

    def read(self, own: str, left_out: list[Path]) -> Iterator[Sample]:
        """The samples of the split `own` of `splits`. Images of the split that have no text are added to `left_out`."""
        raise NotImplementedError


def leads_outside(name: PurePath) -> bool:
    return name.is_absolute() or ".." in name.parts


def below(folder: str, name: str) -> str:
    """The path of an image in the folder that an option names."""
    return str(PurePosixPath(folder, name))


def tell_empty(path: Path, number: int) -> None:
    """Say how many captions without a word were left out."""
    if number:
        logger.warning("%s: %d captions without a word were left out", path, number)


@cache
def _require_fields(pattern: str) -> None:
    """Raises ValueError where there is none, or one is wider than a file's name may be, which would fill memory."""
    formats = [form for _, name, form, _ in Formatter().parse(pattern) if name is not None]
    if not formats:
        raise ValueError("no field")
    if any(int(number) > LONGEST_NAME for form in formats for number in re.findall(r"\d+", form or "")):
        raise ValueError("a field is too wide")


def image_path(pattern: str, key: str, **values: Any) -> str:
    """`pattern` with its {fields} filled in. Raises ConfigError where it has none, or one that there is not."""
    try:
        _require_fields(pattern)
        return pattern.format(**values)
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        fields = ", ".join(f"{{{name}}}" for name in values)
        raise ConfigError(key, f"{pattern!r}: cannot be filled in ({error!r}); it may hold {fields}") from error
