"""Models."""

from pixelbert_plugin.models import clipbert, pixelbert

__all__ = ["clipbert", "pixelbert"]
