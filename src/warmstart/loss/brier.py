"""Brier score."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import accepts


@accepts("category")
def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of the probabilities (N,) (Brier 1950).

    Args:
        outputs: logits (N, C).
        targets: class indices (N,) or class probabilities (N, C).
    """
    probabilities = targets if targets.is_floating_point() else F.one_hot(targets, outputs.shape[-1])
    return (outputs.softmax(-1) - probabilities).square().sum(-1)
