"""Brier score."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import takes


@takes("category")
def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the softmax from the one-hot target (Brier 1950): (N, C) and (N,) to (N,)."""
    return (outputs.softmax(-1) - F.one_hot(targets, outputs.shape[-1])).square().sum(-1)
