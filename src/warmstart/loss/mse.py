"""Mean squared error."""

from torch import Tensor

from warmstart.loss import takes


@takes("value")
def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error, averaged over all but the first dimension: (N, ...) and (N, ...) to (N,)."""
    return (outputs - targets).square().flatten(1).mean(1)
