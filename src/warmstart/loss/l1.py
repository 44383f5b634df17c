"""Mean absolute error."""

from torch import Tensor

from warmstart.loss import takes


@takes("value")
def l1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Absolute error, averaged over all but the first dimension: (N, ...) and (N, ...) to (N,)."""
    return (outputs - targets).abs().flatten(1).mean(1)
