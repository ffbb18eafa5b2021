"""What a head of two labels says, as one number."""

from torch import Tensor


def log_odds(logits_N2: Tensor) -> Tensor:
    """N float32, of the second label: its softmax is their sigmoid, and they go on where that is 0 or 1 but for rounding."""
    return logits_N2[:, 1].float() - logits_N2[:, 0].float()
