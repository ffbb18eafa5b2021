"""Tasks: loss, prediction and evaluation of an experiment; their parameters live in the model."""

from pixelbert_plugin.tasks import vqa

__all__ = ["vqa"]
