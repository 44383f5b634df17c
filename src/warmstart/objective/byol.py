"""BYOL: predict what a slow copy of the model makes of another view of the same example (Grill et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Count, RightOpenUnitInterval
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse
from warmstart.objective.head import make_projection


class BYOL(Objective, nn.Module):
    """The teacher is an exponential moving average of backbone and projection, moved at the start of an optimizer step.

    It is part of this objective's state, so that a resumed run goes on with it, and no optimizer sees it. Its first
    step makes it a copy of the student, wherever the student's weights are from.

    Source: Grill et al. (2020), "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
    https://arxiv.org/abs/2006.07733; the momentum is constant.

    Args:
        backbone: any; it is copied.
        spec: what an example looks like.
        loss: between prediction and target, both scaled to a mean square of 1: `mse` is then 2 - 2 cos.
        momentum: share of itself that the teacher keeps at each optimizer step.
        hidden: inner width of projection and predictor.
        projection: their outer width.
    """

    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    views: ClassVar = 2

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        momentum: RightOpenUnitInterval = 0.99,
        hidden: Count = 512,
        projection: Count = 128,
    ):
        super().__init__()
        self.loss = loss
        self.head = make_projection(backbone.width, hidden, projection)
        self.predictor = make_projection(projection, hidden, projection)
        self.teacher = AveragedModel(
            nn.ModuleList([backbone, self.head]), multi_avg_fn=get_ema_multi_avg_fn(momentum)
        ).requires_grad_(False)

    def follow(self, backbone: Backbone) -> None:
        """Move the teacher towards the student."""
        self.teacher.update_parameters(nn.ModuleList([backbone, self.head]))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Inputs (2B, ...) hold both views, one after the other; one loss value per view."""
        slow_backbone, slow_head = self.teacher.module
        with torch.no_grad():
            wanted = slow_head(slow_backbone(batch.x, batch.mask).pooled)
        guess = self.predictor(self.head(backbone(batch.x, batch.mask).pooled))
        values = self.loss(scaled(guess), scaled(wanted).roll(len(wanted) // 2, 0))
        return StepOutput(values.mean(), values.numel())


def scaled(z: Tensor) -> Tensor:
    """Vectors (B, D) with a mean square of 1."""
    return F.normalize(z.float(), dim=1) * z.shape[1] ** 0.5
