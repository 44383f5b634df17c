"""Binary cross-entropy for multilabel targets."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import accepts


@accepts("categories")
def bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy (N,) of logits and binary targets (N, C), averaged over labels."""
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(-1)
