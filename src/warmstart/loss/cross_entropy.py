"""Cross-entropy."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import takes


@takes("category")
def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Logits (N, C) and class numbers (N,) to (N,); label smoothing as in Szegedy et al. 2016."""
    return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)
