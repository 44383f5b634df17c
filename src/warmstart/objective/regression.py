"""Regression on one or more targets."""

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

LARGEST = 1e18  # absolute target without standardization; squares of larger ones overflow float32


class Regression(Objective, nn.Module):
    """Regression head on the pooled features.

    With `standardize`, the loss is in standard deviations of the training targets; outputs and metrics keep the units
    of the data. Targets and outputs are float64: targets are standardized before they are cast to the precision of the
    network, so that a large offset or scale costs no precision.
    """

    target: ClassVar = "value"
    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    task: ClassVar = "sequence_classification"
    monitor: ClassVar = ("val/mae", "min")
    bounds: ClassVar = (0.0, None)

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, standardize: bool = True):
        super().__init__()
        self.loss, self.targets, self.standardize = loss, spec.outputs, standardize
        center, spread = (spec.center, spec.spread) if standardize else ([0.0] * spec.outputs, [1.0] * spec.outputs)
        self.register_buffer("center", torch.tensor(center, dtype=torch.float64))
        self.register_buffer("spread", torch.tensor(spread, dtype=torch.float64))
        self.head = make_head(backbone, self.task, spec.outputs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Regression:
        """Keep mean and standard deviation in float64 when the Trainer casts the model."""
        kept = self.center, self.spread
        super()._apply(fn, recurse)
        self.center, self.spread = (value.to(fn(value).device) for value in kept)
        return self

    def fit(self, y: Tensor) -> None:
        """Check the training targets (N, K).

        Raises:
            UserError: without standardization, their squares would overflow float32.
        """
        largest = y.abs().max().item() if len(y) else 0.0
        if not self.standardize and largest > LARGEST:
            raise UserError(
                f"objective.standardize=false: a target of {largest:.3g} is too large for a loss in its own units: "
                "use objective=regression, or divide the targets by a constant"
            )

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return predictions (B, K) in the units of the data."""
        return self.unstandardize(self.head(backbone(batch.x, batch.mask).pooled))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over examples and predictions (B, K) in the units of the data."""
        standard = self.head(backbone(batch.x, batch.mask).pooled)
        targets = (batch.y - self.center) / self.spread
        values = self.loss(standard, targets.to(torch.promote_types(standard.dtype, torch.float32)))
        return StepOutput(values.mean(), values.numel(), self.unstandardize(standard))

    def unstandardize(self, standard: Tensor) -> Tensor:
        """Convert outputs of the head (B, K) to the units of the data, in float64."""
        return standard.double() * self.spread + self.center

    def output_spec(self, spec: Spec) -> Spec:
        """Return the spec with the center and spread that outputs are scaled by."""
        return dataclasses.replace(spec, center=tuple(self.center.tolist()), spread=tuple(self.spread.tolist()))

    def metrics(self) -> dict[str, Any]:
        """Return mean absolute error, mean squared error and R2."""
        return {"mae": MAE(self.targets), "mse": MSE(self.targets), "r2": R2(self.targets)}

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean absolute error of each example over targets (B,)."""
        return (outputs - y).abs().mean(-1)

    def to_records(self, outputs: Any, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per example: the predicted value of each target."""
        return [dict(zip(spec.labels, row)) for row in outputs.tolist()]


class Errors(Metric):
    """Accumulate absolute and squared errors, and squared deviations from the mean, for each of K targets.

    Deviations of batches are merged as in Chan, Golub and LeVeque (1979), which is accurate when the mean is large
    compared with the standard deviation.
    """

    full_state_update = True  # states are merged by `update` only

    def __init__(self, targets: int):
        super().__init__()
        self.add_state("count", torch.tensor(0))
        for name in ("absolute", "squared", "mean", "deviation"):
            self.add_state(name, torch.zeros(targets, dtype=torch.float64))

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add outputs (B, K) and targets (B, K)."""
        outputs, y = outputs.double(), y.double()
        residuals = outputs - y
        own, rows = y[0] + (y - y[0]).mean(0), len(y)  # exact for a constant target
        total = self.count + rows
        self.absolute = self.absolute + residuals.abs().sum(0)
        self.squared = self.squared + residuals.square().sum(0)
        between = (own - self.mean).square() * self.count * rows / total
        self.deviation = self.deviation + (y - own).square().sum(0) + between
        self.mean = torch.where(self.count > 0, self.mean + (own - self.mean) * rows / total, own)
        self.count = total

    def sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return count (), absolute and squared errors (K,), and deviations (K,), over all processes."""
        if self.count.ndim == 0:
            return self.count, self.absolute, self.squared, self.deviation
        counts = self.count[:, None]  # of each process
        total = counts.sum()
        between = (counts * (self.mean - (self.mean * counts).sum(0) / total).square()).sum(0)
        return total, self.absolute.sum(0), self.squared.sum(0), self.deviation.sum(0) + between


class MAE(Errors):
    """Mean absolute error over examples and targets."""

    higher_is_better = False

    def compute(self) -> Tensor:
        count, absolute, _, _ = self.sums()
        return (absolute / count).mean()


class MSE(Errors):
    """Mean squared error over examples and targets."""

    higher_is_better = False

    def compute(self) -> Tensor:
        count, _, squared, _ = self.sums()
        return (squared / count).mean()


class R2(Errors):
    """Coefficient of determination, averaged over targets."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return R2; for a constant target, 1 if all predictions are exact, else 0.

        Raises:
            UserError: there are fewer than two examples.
        """
        count, _, squared, deviation = self.sums()
        if count < 2:
            raise UserError(
                "R2 needs two or more held-out rows, but there is one: use more rows for validation and test"
            )
        ratio = squared / torch.where(deviation > 0, deviation, 1.0)
        constant = (squared == 0).double()
        return torch.where(deviation > 0, 1 - ratio, constant).mean()
