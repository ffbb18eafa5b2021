"""Builders: official files → samples by split."""

from pixelbert_plugin.data.builders import coco, flickr30k, nlvr2, visual_genome, vqa2

__all__ = ["coco", "flickr30k", "nlvr2", "visual_genome", "vqa2"]
