"""Focal loss: cross-entropy that looks away from examples already classified well."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.core.ranges import Amount
from warmstart.loss import takes


@takes("category")
def focal(outputs: Tensor, targets: Tensor, gamma: Amount = 2.0) -> Tensor:
    """Logits (N, C) and class numbers (N,) or shares (N, C) to (N,); Lin et al. 2017, in its softmax form."""
    log_p = -F.cross_entropy(outputs, targets, reduction="none")
    return -((1 - log_p.exp()) ** gamma) * log_p
