"""A miniature world with known truth: drawn scenes, written as the five data sets in their official formats."""
