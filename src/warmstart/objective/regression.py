"""One or several real values per example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse
from warmstart.objective.head import make_head

LARGEST = 1e18  # of a target in its own units: the square of a larger one is near the end of single precision


class Regression(Objective, nn.Module):
    """A linear head on the pooled features.

    With `standardize`, loss is in standard deviations of the training targets; outputs and metrics keep their units.
    Targets and outputs are in double precision; targets are standardised before they are rounded to the precision that
    the network computes in, so that their offset and scale do not matter.
    """

    target: ClassVar = "value"
    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    task: ClassVar = "sequence_classification"
    monitor: ClassVar = ("val/mae", "min")

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, standardize: bool = True):
        super().__init__()
        self.loss, self.targets, self.standardize = loss, spec.outputs, standardize
        center, spread = (spec.center, spec.spread) if standardize else ([0.0] * spec.outputs, [1.0] * spec.outputs)
        self.register_buffer("center", torch.tensor(center, dtype=torch.float64))
        self.register_buffer("spread", torch.tensor(spread, dtype=torch.float64))
        self.head = make_head(backbone, self.task, spec.outputs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Regression:
        """Keep mean and standard deviation in double precision when a Trainer converts the model."""
        kept = self.center, self.spread
        super()._apply(fn, recurse)
        self.center, self.spread = (value.to(fn(value).device) for value in kept)
        return self

    def fit(self, y: Tensor) -> None:
        """Check the training targets (N, K).

        Raises:
            UserError: their squares, in the units of the data, are beyond single precision.
        """
        largest = y.abs().max().item() if len(y) else 0.0
        if not self.standardize and largest > LARGEST:
            raise UserError(
                f"objective.standardize=false: a target of {largest:.3g} is too large for a loss in its own units: "
                "use objective=regression, or divide the targets by a constant"
            )

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Values (B, K) in the units of the data."""
        return self.restored(self.head(backbone(batch.x, batch.mask).pooled))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Values (B, K) and one loss value per example."""
        standard = self.head(backbone(batch.x, batch.mask).pooled)
        wanted = (batch.y - self.center) / self.spread
        values = self.loss(standard, wanted.to(torch.promote_types(standard.dtype, torch.float32)))
        return StepOutput(values.mean(), values.numel(), self.restored(standard))

    def restored(self, standard: Tensor) -> Tensor:
        """The head's outputs (B, K) in the units of the data, in double precision."""
        return standard.double() * self.spread + self.center

    def in_units(self, spec: Spec) -> Spec:
        """The center and spread that outputs are restored by."""
        return dataclasses.replace(spec, center=tuple(self.center.tolist()), spread=tuple(self.spread.tolist()))

    def metrics(self) -> dict[str, Any]:
        """Mean absolute and mean squared error, and the share of variance explained."""
        return {"mae": MAE(self.targets), "mse": MSE(self.targets), "r2": R2(self.targets)}

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The absolute error of each example, over its targets: (B,)."""
        return (outputs - y).abs().mean(-1)

    def answer(self, outputs: Any, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per example: the value of each target."""
        return [dict(zip(spec.labels, row)) for row in outputs.tolist()]


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
