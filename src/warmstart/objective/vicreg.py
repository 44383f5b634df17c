"""VICReg: variance-invariance-covariance regularization (Bardes et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import NonNegativeFloat, PositiveInt
from warmstart.core.spec import Spec
from warmstart.distributed.part import gathered
from warmstart.loss.mse import mse
from warmstart.objective.head import make_projection

EPSILON = 1e-4


class VICReg(Objective, nn.Module):
    """Sum of the loss between two views, a hinge loss on each feature's standard deviation, and squared covariances.

    Source: Bardes, Ponce and LeCun (2022), "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
    Learning", https://arxiv.org/abs/2105.04906.

    Args:
        loss: loss of the projections of two views.
        invariance: weight of that loss.
        variance: weight of the hinge loss on standard deviations below 1.
        covariance: weight of the squared covariances between features.
        projection: width of the three layers of the projection.
    """

    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    views: ClassVar = 2

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        invariance: NonNegativeFloat = 25.0,
        variance: NonNegativeFloat = 25.0,
        covariance: NonNegativeFloat = 1.0,
        projection: PositiveInt = 512,
    ):
        super().__init__()
        self.loss = loss
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.head = make_projection(backbone.width, projection, projection, projection)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the loss and its three terms; inputs (2B, ...) are the first views, then the second views."""
        z = gathered(self.head(backbone(batch.x, batch.mask).pooled))
        views = z.to(torch.promote_types(z.dtype, torch.float32)).chunk(2)
        invariance = self.loss(*views).mean()
        (variance, covariance), other = (regularizers(z) for z in views)
        variance, covariance = (variance + other[0]) / 2, covariance + other[1]
        loss = self.invariance * invariance + self.variance * variance + self.covariance * covariance
        measures = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return StepOutput(loss, 2 * len(views[0]), measures=measures)


def regularizers(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variance and covariance terms of features (B, D), both per feature.

    Both estimates are unbiased; for a single row, the divisor is 1.
    """
    z = z - z.mean(0)
    degrees = max(1, len(z) - 1)
    deviations = (z.square().sum(0) / degrees + EPSILON).sqrt()
    covariances = z.T @ z / degrees
    between = covariances.square().sum() - covariances.diagonal().square().sum()
    return F.relu(1 - deviations).mean(), between / z.shape[1]
