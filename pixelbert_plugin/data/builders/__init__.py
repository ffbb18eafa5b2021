"""Builders: official files → samples by split."""

from pixelbert_plugin.data.builders import vqa2

__all__ = ["vqa2"]
