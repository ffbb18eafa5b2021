"""A trained model of this package → transformers' classes, and their folder. Back: checkpoint/huggingface_folder.py."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging as transformers_logging

from pixelbert_plugin import config as configuration
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.huggingface.configuration import PixelBertConfig
from pixelbert_plugin.huggingface.image_processing import PixelBertImageProcessor
from pixelbert_plugin.huggingface.modeling import (
    PixelBertForImagesAndTextClassification,
    PixelBertForImageTextRetrieval,
    PixelBertForPreTraining,
    PixelBertForQuestionAnswering,
    PixelBertPreTrainedModel,
)
from pixelbert_plugin.huggingface.processing import PixelBertProcessor
from pixelbert_plugin.models.pixelbert import PixelBert
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.processors.text import WordPieceTokenizer
from pixelbert_plugin.tasks.nlvr2 import LABELS

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel

CLASSES: dict[str, type[PixelBertPreTrainedModel]] = {  # by native task
    "vqa": PixelBertForQuestionAnswering,
    "nlvr2": PixelBertForImagesAndTextClassification,
    "retrieval": PixelBertForImageTextRetrieval,
    "pretrain": PixelBertForPreTraining,
}
APART = ("env", "checkpoint", "model_config", "task_config", "precision_config")  # of a run's configuration: not in `run`


def from_native(loaded: "LoadedModel") -> tuple[PixelBertPreTrainedModel, PixelBertProcessor]:
    """What `pixelbert_plugin.load` gave, as transformers' model and processor: `model.push_to_hub(…)`, `Trainer(model, …)`.

    Raises UserError where the task, the model or a processor is a plugin's, which transformers has no class for.
    """
    if loaded.is_fast:
        raise UserError("a model loaded with fast=True is for inference alone; load it without")
    task, text, image = loaded.config.task, loaded.processors["text"], loaded.processors["image"]
    for key, is_ours, name in (
        ("task", task in CLASSES, task),
        ("model", type(loaded.model) is PixelBert, loaded.config.model),
        ("processors.text", type(text) is WordPieceTokenizer, loaded.config.processors.text.type),
        ("processors.image", type(image) is ImageProcessor, loaded.config.processors.image.type),
    ):
        if not is_ours:
            raise UserError(
                f"{key}={name!r}: transformers has no class for it here; --export FILE.safetensors writes any model"
            )
    values = configuration.dump(loaded.config)
    config = PixelBertConfig(
        model_options=values["model_config"][loaded.config.model],
        vocab_size=text.vocab_size,
        pad_token_id=text.pad_token_id,
        task=task,
        task_options=values["task_config"].get(task) or {},
        run={key: value for key, value in values.items() if key not in APART},
        **_labels(loaded),
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours
        model: Any = CLASSES[task](config)
    model.pixelbert.load_state_dict(loaded.model.state_dict())
    image_processor = PixelBertImageProcessor(**values["processors"]["image"]["params"])
    return model.to(loaded.device).eval(), PixelBertProcessor(image_processor, text.for_transformers())


def _labels(loaded: "LoadedModel") -> dict[str, Any]:
    """What the outputs of the head are called."""
    names, answers = None, loaded.processors.get("answers")
    if loaded.config.task == "vqa" and answers is not None:
        names = answers.spellings
    elif loaded.config.task == "nlvr2":
        names = list(LABELS)
    if names is None:
        return {}
    id2label = dict(enumerate(names))
    found: dict[str, Any] = {"id2label": id2label, "label2id": {name: index for index, name in id2label.items()}}
    return found if answers is None else {**found, "answers": answers.answers}


def write(loaded: "LoadedModel", folder: Path, card: str, key: str = "--export") -> Path:
    """A new folder that transformers reads: model, configuration, processor, and `card` as its README.md. Raises UserError
    where `folder`, named by `key`, holds something already; it is written whole or not at all."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{key} {str(folder)!r}: is there already and not empty; choose another folder")
    model, processor = from_native(loaded)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    with writing(folder, key), _quiet():
        try:
            aside.mkdir(parents=True)
            model.save_pretrained(aside)
            processor.save_pretrained(aside)
            (aside / "README.md").write_text(card, encoding="utf-8")
            for file in aside.iterdir():  # safetensors makes files that only their owner can read
                file.chmod((aside / "README.md").stat().st_mode)
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars, over the two files that it writes."""
    has_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if has_bars:
            transformers_logging.enable_progress_bar()
