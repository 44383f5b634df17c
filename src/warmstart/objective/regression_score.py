"""Errors of real-valued predictions over a data set, in double precision, as scikit-learn defines them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from warmstart.contracts import UserError


class Errors(Metric):
    """Sums over all examples, for each of K targets: of errors, and of the targets' deviations from their mean.

    Deviations are from each batch's own mean, and batches are merged as by Chan, Golub and LeVeque (1979), so that
    nothing is lost to an offset that is large beside the spread.
    """

    full_state_update = True  # states are merged by `update` alone

    def __init__(self, targets: int):
        super().__init__()
        self.add_state("count", torch.tensor(0))
        for name in ("absolute", "squared", "mean", "deviation"):
            self.add_state(name, torch.zeros(targets, dtype=torch.float64))

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Count outputs (B, K) and targets (B, K)."""
        outputs, y = outputs.double(), y.double()
        residuals = outputs - y
        own, rows = y[0] + (y - y[0]).mean(0), len(y)  # of a constant target, exactly that constant
        total = self.count + rows
        self.absolute = self.absolute + residuals.abs().sum(0)
        self.squared = self.squared + residuals.square().sum(0)
        between = (own - self.mean).square() * self.count * rows / total
        self.deviation = self.deviation + (y - own).square().sum(0) + between
        self.mean = torch.where(self.count > 0, self.mean + (own - self.mean) * rows / total, own)
        self.count = total


class MAE(Errors):
    """The mean absolute error over examples and targets."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """In the units of the targets."""
        return (self.absolute / self.count).mean()


class MSE(Errors):
    """The mean squared error over examples and targets."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """In the squared units of the targets."""
        return (self.squared / self.count).mean()


class R2(Errors):
    """The coefficient of determination, averaged over targets."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """At most 1; of a constant target 1 where every prediction is exact, and 0 otherwise.

        Raises:
            UserError: there are fewer than two examples.
        """
        if self.count < 2:
            raise UserError("R2 is defined for two held-out rows or more, and there is one: validate and test on more")
        ratio = self.squared / torch.where(self.deviation > 0, self.deviation, 1.0)
        constant = (self.squared == 0).double()
        return torch.where(self.deviation > 0, 1 - ratio, constant).mean()
