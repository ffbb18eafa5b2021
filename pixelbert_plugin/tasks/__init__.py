"""Tasks: loss, prediction and evaluation of an experiment; their parameters live in the model."""

from pixelbert_plugin.tasks import nlvr2, pretrain, retrieval, vqa

__all__ = ["nlvr2", "pretrain", "retrieval", "vqa"]
