"""Models."""

from pixelbert_plugin.models import pixelbert

__all__ = ["pixelbert"]
