"""Precisions: how a step is computed. Components of the kind `precision`."""
