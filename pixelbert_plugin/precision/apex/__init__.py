"""NVIDIA Apex: its levels, its own amp where it can be used, and its fused optimizers."""
