"""Metrics: pure functions."""

from pixelbert_plugin.metrics import vqa

__all__ = ["vqa"]
