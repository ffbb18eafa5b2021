"""Evaluation of a split: sample by sample, every pair for retrieval, and the report."""
