"""Pixel-BERT as registered components: `pixelbert_plugin.registry` to add one, `pixelbert-run` to run them."""

from pixelbert_plugin.system import moved

__version__ = "0.1.0"
moved.install()
