"""BYOL: predict the projection of another view by a momentum teacher (Grill et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import PositiveInt, RightOpenUnitInterval
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse
from warmstart.objective.head import make_projection


class BYOL(Objective, nn.Module):
    """The teacher is an exponential moving average of backbone and projection, updated before each optimizer step.

    It is part of the state dict, so a resumed run restores it, and is not optimized. Its first update copies the
    initial weights of the student.

    Source: Grill et al. (2020), "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
    https://arxiv.org/abs/2006.07733; the momentum is constant.

    Args:
        backbone: the student; the teacher is a copy of it.
        loss: loss of prediction and target, both scaled to a mean square of 1: `mse` is then 2 - 2 cos.
        momentum: decay of the teacher's moving average per optimizer step.
        hidden: hidden width of projection and predictor.
        projection: output width of projection and predictor.
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
        hidden: PositiveInt = 512,
        projection: PositiveInt = 128,
    ):
        super().__init__()
        self.loss = loss
        self.head = make_projection(backbone.width, hidden, projection)
        self.predictor = make_projection(projection, hidden, projection)
        self.teacher = AveragedModel(
            nn.ModuleList([backbone, self.head]), multi_avg_fn=get_ema_multi_avg_fn(momentum)
        ).requires_grad_(False)

    def on_step_start(self, backbone: Backbone) -> None:
        self.teacher.update_parameters(nn.ModuleList([backbone, self.head]))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over views; inputs (2B, ...) are the first views, then the second views."""
        teacher_backbone, teacher_head = self.teacher.module
        with torch.no_grad():
            targets = teacher_head(teacher_backbone(batch.x, batch.mask).pooled)
        predictions = self.predictor(self.head(backbone(batch.x, batch.mask).pooled))
        values = self.loss(scaled(predictions), scaled(targets).roll(len(targets) // 2, 0))
        return StepOutput(values.mean(), values.numel())


def scaled(z: Tensor) -> Tensor:
    """Scale vectors (B, D) to a mean square of 1."""
    return F.normalize(z.float(), dim=1) * z.shape[1] ** 0.5
