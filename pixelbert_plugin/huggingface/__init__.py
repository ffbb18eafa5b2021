"""Pixel-BERT inside Hugging Face transformers: thin classes over the one native model, whose outputs are its to the last bit.

Importing this module registers them: AutoConfig, AutoModel and its like, AutoProcessor and
`transformers.pipeline("pixelbert-question-answering")` then read a folder that `pixelbert-run --export FOLDER --format hf`
wrote. Nothing else of the package imports it before it is asked for.
"""

import inspect
from typing import Any

import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining, AutoProcessor

from pixelbert_plugin.huggingface import pipelines
from pixelbert_plugin.huggingface.configuration import PixelBertConfig
from pixelbert_plugin.huggingface.conversion import from_native, write
from pixelbert_plugin.huggingface.image_processing import PixelBertImageProcessor
from pixelbert_plugin.huggingface.modeling import (
    PixelBertForImagesAndTextClassification,
    PixelBertForImageTextRetrieval,
    PixelBertForPreTraining,
    PixelBertForQuestionAnswering,
    PixelBertModel,
)
from pixelbert_plugin.huggingface.pipelines import PixelBertQuestionAnsweringPipeline
from pixelbert_plugin.huggingface.processing import PixelBertProcessor

__all__ = [
    "PixelBertConfig",
    "PixelBertForImageTextRetrieval",
    "PixelBertForImagesAndTextClassification",
    "PixelBertForPreTraining",
    "PixelBertForQuestionAnswering",
    "PixelBertImageProcessor",
    "PixelBertModel",
    "PixelBertProcessor",
    "PixelBertQuestionAnsweringPipeline",
    "from_native",
    "write",
]


def _register() -> None:
    AutoConfig.register(PixelBertConfig.model_type, PixelBertConfig, exist_ok=True)
    AutoModel.register(PixelBertConfig, PixelBertModel, exist_ok=True)
    AutoModelForPreTraining.register(PixelBertConfig, PixelBertForPreTraining, exist_ok=True)
    answering = getattr(transformers, "AutoModelForVisualQuestionAnswering", None)  # not in every version
    if answering is not None:
        answering.register(PixelBertConfig, PixelBertForQuestionAnswering, exist_ok=True)
    classes: dict[str, Any] = {"slow_image_processor_class": PixelBertImageProcessor}
    if (
        "image_processor_classes" in inspect.signature(AutoImageProcessor.register).parameters
    ):  # later versions choose by backend
        classes = {"image_processor_classes": dict.fromkeys(("torchvision", "pil"), PixelBertImageProcessor)}
    AutoImageProcessor.register(PixelBertConfig, exist_ok=True, **classes)
    AutoProcessor.register(PixelBertConfig, PixelBertProcessor, exist_ok=True)
    pipelines.register()


_register()
