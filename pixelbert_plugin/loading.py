"""`load`: a trained model from its files alone, ready to be asked about images and texts.

A checkpoint keeps all that its parts are built from: options without the files they once named, vocabularies, weights. So no
data set is read, no pre-trained weights and no hub. A plugin is imported only where it defines one of the parts.
"""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import build_model, build_processors, build_task, put_on
from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.data.collate import ImageKey, collate
from pixelbert_plugin.data.images import BadImageError, ImageSource
from pixelbert_plugin.data.loader import ready
from pixelbert_plugin.data.vocabularies import VOCABULARY, take_states
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.interfaces import Model, Precision
from pixelbert_plugin.precision.inference import cast_weights
from pixelbert_plugin.registry import plugins, yaml_text
from pixelbert_plugin.registry.schema import UnknownComponentError
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.types import Batch, ModelOutput, Sample

Images: TypeAlias = "ImageSource | list[ImageSource] | tuple[ImageSource, ...]"  # of one text
KEY = "path"  # what errors call the argument of `load`


class LoadedModel:
    """A trained model with its processors, in evaluation mode. Called with an image and a text it gives the model's output.

    model: the torch module, float32, on `device`.
    config: the configuration of the run that trained it, without the files its weights and vocabularies began with.
    processors: text, image and, where the task has answers, answers; with the vocabularies of the training.
    task: the task it was trained for; `task.heads()` names the logits.
    device: where it computes.
    path: the checkpoint folder or the file it came from.
    precision: what the forward pass computes in.
    is_fast: whether the model was changed for inference alone.
    """

    def __init__(
        self,
        model: nn.Module,
        config: RunConfig,
        processors: dict[str, Any],
        task: Task,
        device: torch.device,
        path: Path,
        precision: Precision | None = None,
        is_fast: bool = False,
    ):
        self.model, self.config, self.processors, self.task = model, config, processors, task
        self.device, self.path, self.precision, self.is_fast = device, path, precision, is_fast
        if is_fast:
            cast(Model, model).prepare_inference()
            if precision is not None:
                cast_weights(model, precision.autocast)

    def __call__(self, image: Images, text: str) -> ModelOutput:
        """The output for one text (question, caption, statement) with its image, or its images as a list (NLVR2: two).

        An image is a path, an encoded file's bytes, Pillow's image, or a uint8 array H W 3, RGB. Logits of the head "mlm" are
        those at the text's [MASK]s. Raises UserError for an image that cannot be read, or another number of images than the
        task has.
        """
        return self.forward([(image, text)])

    @torch.no_grad()
    def forward(self, pairs: Sequence[tuple[Images, str]]) -> ModelOutput:
        """The output for several pairs in one forward: row n of the logits is pair n's. An image given twice, as the same
        object or path, goes through the CNN once."""
        with self.precision.autocast() if self.precision is not None else nullcontext():
            return self.model(self.batch(pairs))

    def save_pretrained(self, folder: str | Path) -> dict[str, str]:
        """Write the encoders for other programs into a new folder: image_encoder/ in torchvision's or timm's names,
        text_encoder/ with its vocabulary as transformers reads them. Returns, by part, the file, or why there is none.

        Raises UserError where `folder` holds something already, or nothing of the model has such names.
        """
        target = Path(folder).expanduser()
        given = f"folder={str(folder)!r}"
        if self.is_fast:
            raise UserError(f"{given}: a model loaded with fast=True is for inference alone; load it without")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{given}: is there already and not empty; choose another folder")
        with writing(target, "folder"):
            found = cast(Model, self.model).save_pretrained(target)
            if "text_encoder" in found:
                found |= self.processors["text"].save_pretrained(target / "text_encoder")
        if not found:
            raise UserError(f"{given}: the model {self.config.model!r} has no part in the names of another program")
        return found

    def batch(self, pairs: Sequence[tuple[Images, str]]) -> Batch:
        """The model's input for (image, text) pairs, on `device`."""
        text, encoded, samples = self.processors["text"], [], []
        keys: list[list[ImageKey]] = []  # of each text's images
        pixels: dict[ImageKey, Tensor] = {}
        wanted = self.task.images_per_sample
        for number, (given, words) in enumerate(pairs):
            images: list[ImageSource] = list(given) if isinstance(given, list | tuple) else [given]
            if not isinstance(words, str):
                raise TypeError(f"a text is a str, not {type(words).__name__}")
            if not images or len(images) != (wanted or len(images)):
                raise UserError(f"{len(images)} image(s) to a text: the task {self.config.task!r} has {wanted or 'at least 1'}")
            keys.append([(str(image),) if isinstance(image, str | Path) else (id(image),) for image in images])
            for key, image in zip(keys[-1], images, strict=True):
                if key not in pixels:
                    pixels[key] = self._decoded(image)
            encoded.append(text(words)[0])
            samples.append(Sample(sample_id=number, image_ids=tuple(key[0] for key in keys[-1]), images=(), text=words))
        if not samples:
            raise ValueError("no (image, text) pair")
        batch = collate(samples, encoded, keys, pixels, dict.fromkeys(pixels, 0), [1.0] * len(samples), text.pad_token_id)
        if "mlm" in self.task.heads():
            batch.targets["mlm_positions"] = (batch.input_ids == text.mask_token_id).flatten().nonzero()[:, 0]
        return ready(batch, self.processors["image"], self.device)

    def _decoded(self, image: ImageSource) -> Tensor:
        try:
            return self.processors["image"].decode(image)
        except BadImageError as error:
            raise UserError(str(error)) from error


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    user_dir: str | Path | None = None,
    fast: bool = False,
    precision: str = "fp32",
) -> LoadedModel:
    """A trained model ready for use, with its processors: `load("save/vqa2")("dog.jpg", "what animal is it?")`.

    `path`: a save folder (its best checkpoint is taken), a checkpoint's folder, or a file of `pixelbert-run --export`.
    `device`: "cpu", "cuda", "cuda:1", …
    `user_dir`: where the plugin of the run is now, should it define the model, an encoder, a processor or the task. By default
    it is looked for where the run had it; an exported file does not say where that was. It is Python code, which is executed.
    `fast`: change the model for inference alone: a ResNet's norms are folded into its convolutions, channels stand last.
    Outputs are the same up to rounding, where without it they are the run's own to the last bit.
    `precision`: what the forward pass computes in, by its registered name; "bf16" agrees to two or three digits.

    Raises UserError where the path is no checkpoint, is damaged, or needs a plugin that is not there.
    """
    plugins.load(str(user_dir) if user_dir is not None else None)
    given = f"{KEY}={str(path)!r}"
    place = _checkpoint(Path(path).expanduser())
    content = restore.read_content(place, KEY)
    config = _configuration(content, place, given)
    device = _device(device)
    try:
        task, processors, model = _build(config, content, given)
    except UnknownComponentError as error:
        _load_plugin(config.env.user_dir, config.plugins, error, given)
        task, processors, model = _build(config, content, given)
    restore.load_weights(place, model, KEY)
    numbers: Precision = registry.build("precision", precision, None, "precision", device=device)
    numbers.prepare(put_on(model, device), {})
    return LoadedModel(model.eval(), config, processors, task, device, place, numbers, fast)


def _checkpoint(path: Path) -> Path:
    """The checkpoint that `path` means: of a save folder the best one."""
    if not (path / "checkpoints").is_dir():
        return path
    found = Checkpoints(path / "checkpoints", max_to_keep=1).finished()
    if found is None:
        raise UserError(f"{KEY}={str(path)!r}: this run has saved no checkpoint yet")
    return found


def _configuration(content: dict[str, Any], place: Path, given: str) -> RunConfig:
    """The run's configuration as the checkpoint has it, its options those that name no files."""
    if not content.get("config"):
        raise UserError(f"{given}: holds no configuration of a run; give a folder or an exported file of pixelbert-run")
    try:
        values = yaml_text.parse(content["config"])
        config = configuration.typed(place / "config.yaml" if place.is_dir() else place, values, {})
    except (ValueError, AttributeError, TypeError, UserError) as error:
        raise UserError(f"{given}: its configuration is invalid: {error}") from error
    portable = content.get("portable", {})  # an earlier version did not save it: then files are read again
    for name in vars(config.processors).keys() & portable:
        getattr(config.processors, name).params = portable[name]
    if "model" in portable:
        config.model_config[config.model] = portable["model"]
    if config.env.user_dir:
        is_exported = place.is_file()  # such a file has the name only
        config.env.user_dir = config.env.user_dir if is_exported else os.path.join(os.path.realpath(place), config.env.user_dir)
    return config


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r}: {str(error).splitlines()[0]}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={str(name)!r}: torch sees no CUDA device; use cpu")
    return device


def _build(config: RunConfig, content: dict[str, Any], given: str) -> tuple[Task, dict[str, Any], nn.Module]:
    """Task, processors and model as the checkpoint has them, the model's weights still random."""
    states, roles = content.get("processors", {}), registry.get("task", config.task, "task").processors
    built = [f"model_config.{config.model}", f"task_config.{config.task}", *(f"processors.{role}.params" for role in roles)]
    configuration.configure(config, only=built)
    processors = build_processors(config.processors, roles)
    take_states(processors, {role: state for role, state in states.items() if role in processors}, given)
    for role in VOCABULARY.keys() & processors.keys() - states.keys():
        if processors[role].needs_fit:
            raise UserError(f"{given}: holds no vocabulary of processors.{role}")
    task = build_task(config.chosen_task, processors)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours
        return task, processors, build_model(config.chosen_model, task, processors, config.training.seed)


def _load_plugin(user_dir: str | None, modules: list[str], unknown: UnknownComponentError, given: str) -> None:
    """Import the run's plugin, which should define the component that is unknown. Raises UserError where it does not."""
    named = [f"env.user_dir={user_dir!r}"] * bool(user_dir) + [f"plugins={modules}"] * bool(modules)
    what = f"{given}: the {unknown.kind} {unknown.name!r}"
    if not named:
        raise UserError(f"{what} is not installed here; install the package that defines it, or name its code: user_dir=PATH")
    try:
        if user_dir and not os.path.isabs(user_dir):
            raise UserError("an exported file does not say where it lies")
        plugins.load(user_dir, modules)
        registry.get(unknown.kind, unknown.name)
    except UserError as error:
        raise UserError(
            f"{what} is of the run's plugin, {', '.join(named)}, which is not there ({error}); "
            "load(…, user_dir=PATH) says where it is now"
        ) from error
