"""A trained model's computation as one file, which runs without this package: torch.export's .pt2 and ONNX."""

from pixelbert_plugin.graphs.files import write

__all__ = ["write"]
