"""Brier score."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import takes


@takes("category")
def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of softmax and target (Brier 1950): logits (N, C) and numbers (N,) or shares (N, C) to (N,)."""
    shares = targets if targets.is_floating_point() else F.one_hot(targets, outputs.shape[-1])
    return (outputs.softmax(-1) - shares).square().sum(-1)
