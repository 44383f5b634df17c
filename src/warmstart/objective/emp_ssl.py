"""EMP-SSL: many crops of each example, whose projections agree and together span the space (Tong et al. 2023)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, between
from warmstart.core.spec import Spec
from warmstart.distributed.part import gathered
from warmstart.loss.mse import mse
from warmstart.objective.head import make_projection


class EMPSSL(Objective, nn.Module):
    """Loss between each view and the mean of the views, minus the coding rate of the examples in each view.

    Both are of normalized projections. Source: Tong et al. (2023), "EMP-SSL: Towards Self-Supervised Learning in One
    Training Epoch", https://arxiv.org/abs/2304.03977, which uses 20 or more crops of half the size of an image, with
    the weight 200.

    Args:
        loss: loss of the projection of a view and the mean over views, both scaled to a mean square of 1: half of `mse`
            is then 1 - cos.
        views: number of views of an example.
        invariance: weight of that loss.
        distortion: tolerated squared error of the coding rate; the smaller, the more it spreads the projections.
        projection: width of the two layers of the projection.
    """

    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    views: ClassVar = 4

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        views: between(2, 64) = 4,
        invariance: NonNegativeFloat = 200.0,
        distortion: PositiveFloat = 0.2,
        projection: PositiveInt = 128,
    ):
        super().__init__()
        self.loss, self.views = loss, views
        self.invariance, self.distortion = invariance, distortion
        self.head = make_projection(backbone.width, projection, projection)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the loss and its two terms; inputs (views * B, ...) are all first views, then all second views, ..."""
        z = gathered(F.normalize(self.head(backbone(batch.x, batch.mask).pooled).float(), dim=1))
        z = z.view(self.views, -1, z.shape[1])
        scale = z.shape[2] ** 0.5
        mean = F.normalize(z.mean(0), dim=1).expand_as(z)
        invariance = self.loss(z.flatten(0, 1) * scale, mean.flatten(0, 1) * scale).mean() / 2
        rate = coding_rate(z, self.distortion)
        loss = self.invariance * invariance - rate
        return StepOutput(loss, z.shape[0] * z.shape[1], measures={"invariance": invariance, "coding_rate": rate})


def coding_rate(z: Tensor, distortion: float) -> Tensor:
    """Return the mean over views of the coding rate of vectors (V, B, D) up to a squared error, in nats.

    The rate of B vectors is log det(I + D / (B distortion) Z' Z) / 2, as in Yu et al. (2020), "Learning Diverse and
    Discriminative Representations via the Principle of Maximal Coding Rate Reduction",
    https://arxiv.org/abs/2006.08558.
    """
    with torch.autocast(z.device.type, enabled=False):
        scatter = z.mT @ z * (z.shape[2] / (z.shape[1] * distortion))
        return torch.linalg.slogdet(scatter + torch.eye(z.shape[2], device=z.device)).logabsdet.mean() / 2
