"""Builders: official files → samples by split."""
