"""Mean squared error."""

from torch import Tensor

from warmstart.loss import accepts


@accepts("value")
def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error (N,) of (N, ...), averaged over all but the first dimension."""
    return (outputs - targets).square().flatten(1).mean(1)
