"""Huber's loss: squared near zero, absolute beyond `delta`."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.core.ranges import Positive
from warmstart.loss import takes


@takes("value")
def huber(outputs: Tensor, targets: Tensor, delta: Positive = 1.0) -> Tensor:
    """Huber (1964), averaged over all but the first dimension: (N, ...) and (N, ...) to (N,)."""
    return F.huber_loss(outputs, targets, reduction="none", delta=delta).flatten(1).mean(1)
