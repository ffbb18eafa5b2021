"""Processors: text, image and answers. Each saves its state with the checkpoint as JSON."""
