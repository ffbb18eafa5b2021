"""Image and text encoders."""

from pixelbert_plugin.encoders import bert, resnet

__all__ = ["bert", "resnet"]
