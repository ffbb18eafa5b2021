"""Optimizers and schedules of the learning rate. Components."""

from pixelbert_plugin.optim import optimizers, schedulers

__all__ = ["optimizers", "schedulers"]
