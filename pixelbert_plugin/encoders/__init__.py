"""Image and text encoders."""

from pixelbert_plugin.encoders import bert, resnet, timm_backbone

__all__ = ["bert", "resnet", "timm_backbone"]
