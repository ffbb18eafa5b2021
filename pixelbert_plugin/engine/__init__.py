"""The engine: one plain training loop, evaluation, checkpoints and events. It imports no concrete component."""
