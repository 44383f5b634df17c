"""Focal loss: cross-entropy with lower weights for well-classified examples."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.core.ranges import NonNegativeFloat
from warmstart.loss import accepts


@accepts("category")
def focal(outputs: Tensor, targets: Tensor, gamma: NonNegativeFloat = 2.0) -> Tensor:
    """Return the focal loss (N,) of Lin et al. (2017), in its softmax form.

    Args:
        outputs: logits (N, C).
        targets: class indices (N,) or class probabilities (N, C).
        gamma: focusing parameter; 0 for cross-entropy.
    """
    log_p = -F.cross_entropy(outputs, targets, reduction="none")
    return -((1 - log_p.exp()) ** gamma) * log_p
