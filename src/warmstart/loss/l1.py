"""Mean absolute error."""

from torch import Tensor

from warmstart.loss import accepts


@accepts("value")
def l1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the absolute error (N,) of (N, ...), averaged over all but the first dimension."""
    return (outputs - targets).abs().flatten(1).mean(1)
