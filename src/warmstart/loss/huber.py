"""Huber loss."""

from torch import Tensor
from torch.nn import functional as F

from warmstart.core.ranges import PositiveFloat
from warmstart.loss import accepts


@accepts("value")
def huber(outputs: Tensor, targets: Tensor, delta: PositiveFloat = 1.0) -> Tensor:
    """Return the Huber (1964) loss (N,) of (N, ...): squared for errors up to `delta`, linear beyond."""
    return F.huber_loss(outputs, targets, reduction="none", delta=delta).flatten(1).mean(1)
