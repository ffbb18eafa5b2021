"""What a head of two labels says, as one number."""

from torch import Tensor


def log_odds(logits_N2: Tensor) -> Tensor:
    """N float32, of the second label: its softmax is their sigmoid, and they go on where that is 0 or 1 but for rounding."""
    return logits_N2[:, 1].float() - logits_N2[:, 0].float()


def log_odds_of_all(logits_MV: Tensor) -> Tensor:
    """M V float32, of each entry of a softmax over all: log p − log (1 − p), in double precision, as 1 − p is a difference."""
    logs_MV = logits_MV.double().log_softmax(1)
    return (logs_MV - (-logs_MV.expm1()).clamp(min=1e-300).log()).float()
