"""Binary cross-entropy for several labels at once."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import takes


@takes("categories")
def bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logits (N, C) and zero-or-one targets (N, C) to (N,), averaged over the labels."""
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(-1)
