"""Tasks: loss, prediction and evaluation of an experiment; their parameters live in the model."""
