"""One or several real values per example."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.contracts import Backbone, Batch, LossFunction, Spec, StepOutput
from warmstart.loss.mse import mse
from warmstart.objective.head import make_head


class Regression(nn.Module):
    """A linear head on the pooled features.

    With `standardize`, loss is in standard deviations of the training targets; outputs and metrics keep their units.
    """

    target: ClassVar = "value"
    predicts: ClassVar = "value"
    needs: ClassVar = frozenset()
    default_loss: ClassVar = staticmethod(mse)
    task: ClassVar = "sequence_classification"
    views: ClassVar = 1
    monitor: ClassVar = ("val/mae", "min")

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, standardize: bool = True):
        super().__init__()
        self.loss = loss
        self.register_buffer("center", torch.tensor(spec.center if standardize else [0.0] * spec.outputs))
        self.register_buffer("spread", torch.tensor(spec.spread if standardize else [1.0] * spec.outputs))
        self.head = make_head(backbone, self.task, spec.outputs)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Values (B, K) in the units of the data."""
        return self.head(backbone(batch.x, batch.mask).pooled) * self.spread + self.center

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Values (B, K) and one loss value per example."""
        standard = self.head(backbone(batch.x, batch.mask).pooled)
        values = self.loss(standard, (batch.y - self.center) / self.spread)
        return StepOutput(values.mean(), values.numel(), standard * self.spread + self.center)

    def metrics(self) -> dict[str, Any]:
        """Mean absolute error and the share of variance explained."""
        from torchmetrics.regression import MeanAbsoluteError, R2Score

        return {"mae": MeanAbsoluteError(), "r2": R2Score()}

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The absolute error of each example, over its targets: (B,)."""
        return (outputs - y).abs().mean(-1)

    def answer(self, outputs: Any, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """One plain record per example: the value of each target."""
        return [dict(zip(spec.labels, row)) for row in outputs.tolist()]
