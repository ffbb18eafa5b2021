"""Pixel-BERT as registered components: `pixelbert_plugin.registry` to add one, `pixelbert-run` to run them."""

__version__ = "0.1.0"
