"""Processors: text, image and answers. Each saves its state with the checkpoint as JSON."""

from pixelbert_plugin.processors import answers, image, text

__all__ = ["answers", "image", "text"]
