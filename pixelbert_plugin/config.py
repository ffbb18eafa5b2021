"""Configuration: YAML files with `includes:`, then `key=value`, merged into one typed `RunConfig`.

Every value remembers the file it came from (`RunConfig.sources`), for errors and for `--print-config`. Components'
options (`model_config.<name>`, `dataset_config.<name>`, …) are checked by the registry once plugins are loaded:
`complete`.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf

from pixelbert_plugin import registry, schema
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.schema import Component, ConfigError, component

COMMAND_LINE = "command line"
DEFAULT = "default"
PACKAGE = Path(__file__).parent


@dataclass(kw_only=True)
class Processors:
    text: Component = component("processor", "bert_tokenizer")  # words → input_ids
    image: Component = component("processor", "image")  # file → normalised float image on the device
    answers: Component = component("processor", "answers")  # annotators' answers → soft scores


@dataclass(kw_only=True)
class EarlyStop:
    enabled: bool = False  # stop when the criterion has not improved for `patience` evaluations
    patience: int = 5  # evaluations
    criterion: str | None = None  # "split/dataset/metric" that chooses checkpoints/best; none: the task's main metric
    minimize: bool = False  # whether a lower criterion is better


@dataclass(kw_only=True)
class Training:
    batch_size: int = 64  # pairs (one text with one image) per update, over all processes
    micro_batch_size: int | None = None  # pairs per forward; gradients accumulate up to batch_size. None: batch_size
    texts_per_image: int | None = 1  # pairs of one image kept together, so that its CNN runs once. None: all of them
    max_updates: int | None = None  # updates; the earlier of max_updates and max_epochs ends the run
    max_epochs: float | None = None  # passes over all pairs
    evaluation_interval: int | None = None  # updates between evaluations on val. None: only after the last update
    checkpoint_interval: int = 1000  # updates between checkpoints
    log_interval: int = 20  # updates between lines in log.jsonl and TensorBoard
    precision: str = "auto"  # a registered precision; auto: bf16 on a GPU that has it, else fp32
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    seed: int = 1  # seeds weights, order, augmentation, pixel sampling and dropout
    num_workers: int = 2  # processes that read and decode; 0: in the training process
    num_threads: int | None = None  # CPU threads of the training process. None: torch's choice
    bucket_by_size: bool = False  # batches of images of like size, so that little is padding (reads image headers once)
    max_grad_norm: float | None = None  # clip the global norm of all gradients. None: no clipping, as in the paper
    early_stop: EarlyStop = field(default_factory=EarlyStop)

    def __post_init__(self):
        for name in ("batch_size", "micro_batch_size", "texts_per_image", "max_updates", "checkpoint_interval"):
            _check_positive(self, name)
        for name in ("evaluation_interval", "log_interval", "max_epochs", "max_grad_norm", "num_threads"):
            _check_positive(self, name)
        if self.num_workers < 0:
            raise ValueError("num_workers: must be 0 or more")


@dataclass(kw_only=True)
class Evaluation:
    batch_size: int | None = None  # pairs per forward. None: training.micro_batch_size or training.batch_size
    predict: bool = False  # also write predictions of splits without answers (files for an evaluation server)

    def __post_init__(self):
        _check_positive(self, "batch_size")


@dataclass(kw_only=True)
class Checkpoint:
    resume: bool = False  # go on from the newest good checkpoint of env.save_dir
    resume_file: str | None = None  # a checkpoint folder to evaluate, or to go on from, instead
    pretrained: str | None = None  # a checkpoint folder whose weights (not optimizers or position) start the run
    max_to_keep: int = 2  # newest checkpoints kept beside the best one

    def __post_init__(self):
        _check_positive(self, "max_to_keep")


@dataclass(kw_only=True)
class Env:
    data_dir: str = "data"  # folder of the official files; relative data paths start here
    save_dir: str | None = None  # run folder. None: save/<config's name>
    user_dir: str | None = None  # plugin folder or file, relative to the file that names it
    overwrite: bool = False  # delete the run that save_dir holds


@dataclass(kw_only=True)
class RunConfig:
    """The whole configuration of a run; `pixelbert-run --print-config` shows it with the origin of each value."""

    run_type: str = "train_val"  # train, val, test, joined by "_"
    model: str = "pixelbert"  # registered model
    task: str = "vqa"  # registered task
    datasets: list[str] = field(default_factory=list)  # registered builders
    model_config: dict[str, Any] = field(default_factory=dict)  # options by model name
    task_config: dict[str, Any] = field(default_factory=dict)  # options by task name
    dataset_config: dict[str, Any] = field(default_factory=dict)  # options by builder name
    processors: Processors = field(default_factory=Processors)
    optimizer: dict[str, Component] = field(default_factory=dict)  # by parameter group of the model
    scheduler: Component = component("scheduler", "step")
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    env: Env = field(default_factory=Env)
    plugins: list[str] = field(default_factory=list)  # modules to import that register components

    def __post_init__(self):
        parts = self.run_type.split("_")
        if not set(parts) <= {"train", "val", "test"} or len(set(parts)) < len(parts):
            raise ValueError("run_type: must be train, val and test, each at most once, joined by _ (train_val)")
        if not self.datasets:
            raise ValueError("datasets: name at least one data set")
        self.sources: dict[str, str] = {}

    def splits(self) -> list[str]:
        return self.run_type.split("_")


def _check_positive(section: Any, name: str) -> None:
    value = getattr(section, name)
    if value is not None and value <= 0:
        raise ValueError(f"{name}: must be above 0")


def find(path: str) -> Path:
    """`path` from the working folder, else inside the installed package (or, in a checkout, beside it)."""
    candidates = [Path(path), PACKAGE / path, PACKAGE.parent / path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"config={path!r}: no such file in the working folder nor in the installed package; "
        "give the path of a YAML file, for instance config=projects/pixelbert/configs/vqa2.yaml"
    )


def load(path: str, overrides: list[str] | None = None) -> RunConfig:
    """Read `path` with its includes, apply the `key=value` overrides and check all but the components' options."""
    file = find(path)
    values, sources = _read(file, ())
    for override in overrides or []:
        key, node = _parse_override(override)
        _merge(values, sources, node, COMMAND_LINE, "")
        del key
    if isinstance(values.get("datasets"), str):  # MMF's datasets=a,b
        values["datasets"] = [name.strip() for name in values["datasets"].split(",")]
    try:
        config = schema.merge(RunConfig, values)
    except ConfigError as error:
        raise _with_source(error, sources) from error
    if config.env.save_dir is None:
        config.env.save_dir = str(Path("save") / file.stem)
    config.sources = sources
    return config


def complete(config: RunConfig) -> RunConfig:
    """Check every component's options and fill in their defaults. Plugins must be loaded before."""
    try:
        for kind, chosen, sections in (
            ("model", [config.model], config.model_config),
            ("task", [config.task], config.task_config),
            ("builder", config.datasets, config.dataset_config),
        ):
            key = "dataset" if kind == "builder" else kind
            for name in chosen:
                registry.get(kind, name, "datasets" if kind == "builder" else kind)
            for name in [*chosen, *(name for name in sections if name not in chosen)]:
                options = registry.configure(kind, name, sections.get(name), f"{key}_config.{name}")
                sections[name] = registry.as_dict(options)
        for kind, references, path in (
            ("processor", vars(config.processors), "processors."),
            ("optimizer", config.optimizer, "optimizer."),
            ("scheduler", {"scheduler": config.scheduler}, ""),
        ):
            for name, reference in references.items():
                options = registry.configure(kind, reference.type, reference.params, f"{path}{name}.params")
                reference.params = registry.as_dict(options)
        if config.training.precision != "auto":
            registry.get("precision", config.training.precision, "training.precision")
    except ConfigError as error:
        raise _with_source(error, config.sources) from error
    return config


def dump(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain mappings, as config.yaml holds it."""
    return dataclasses.asdict(config)


def to_yaml(config: RunConfig) -> str:
    return yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True)


def to_annotated_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML, each value with a comment that names the file it came from."""
    lines = []

    def walk(node: dict[str, Any], path: str, indent: str) -> None:
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            if isinstance(value, dict) and value:
                lines.append((f"{indent}{key}:", ""))
                walk(value, here, indent + "  ")
            else:
                shown = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
                shown = shown.removesuffix("...\n").strip()
                lines.append((f"{indent}{key}: {shown}", f"# {source_of(here, config.sources)}"))

    walk(dump(config), "", "")
    width = min(72, max(len(text) for text, comment in lines if comment))
    return "\n".join(f"{text:<{width}}  {comment}".rstrip() for text, comment in lines)


def source_of(key: str, sources: dict[str, str]) -> str:
    """Where the value at `key` was set; a value inside a list or mapping set as a whole has that one's source."""
    while key:
        if key in sources:
            return sources[key]
        key = key.rpartition(".")[0]
    return DEFAULT


def _read(file: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged values of a file and its includes (relative to it; later wins, the file itself last)."""
    if file.resolve() in chain:
        raise UserError(f"{file}: includes itself, through {' → '.join(str(path) for path in chain)}")
    try:
        node = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{file}: {line}not valid YAML: {getattr(error, 'problem', error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    if not isinstance(node, dict):
        raise UserError(f"{file}: holds no mapping (key: value) at its top level")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for include in node.pop("includes", None) or []:
        included = file.parent / include
        if not included.is_file():
            raise UserError(f"{file}: includes {include!r}: no such file {included}; paths are relative to the including file")
        inner, inner_sources = _read(included, (*chain, file.resolve()))
        for key, value in inner.items():
            _merge(values, sources, {key: value}, inner_sources, "")
    env = node.get("env")
    if isinstance(env, dict) and env.get("user_dir"):
        env["user_dir"] = str((file.parent / env["user_dir"]).resolve())
    _merge(values, sources, node, _shown(file), "")
    return values, sources


def _shown(file: Path) -> str:
    """A shipped file by its path in the package, any other as it was named."""
    for root in (PACKAGE, PACKAGE.parent):
        if file.resolve().is_relative_to(root):
            return str(file.resolve().relative_to(root))
    return str(file)


def _merge(into: dict, sources: dict[str, str], node: dict, source: str | dict[str, str], path: str) -> None:
    """Merge `node` into `into`, key by key; a list or a plain value replaces what was there."""
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], sources, value, source, here)
        else:
            into[key] = value
            sources[here] = source if isinstance(source, str) else source.get(here, DEFAULT)


def _parse_override(text: str) -> tuple[str, dict[str, Any]]:
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r}: not understood; options are given as key=value, for instance training.batch_size=64")
    try:
        return key, OmegaConf.to_container(OmegaConf.from_dotlist([text]), resolve=False)
    except Exception as error:
        raise UserError(f"{text!r}: not understood ({str(error).splitlines()[0]}); quote YAML in values") from error


def _with_source(error: ConfigError, sources: dict[str, str]) -> UserError:
    source = source_of(error.key, sources)
    return error if source == DEFAULT else UserError(f"{error} (set in {source})")
