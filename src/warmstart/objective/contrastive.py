"""SimCLR: contrastive learning of two views of each example (Chen et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import PositiveFloat, PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy


class Contrastive(Objective, nn.Module):
    """NT-Xent loss: cross-entropy over cosine similarities of projections, divided by `temperature`."""

    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    views: ClassVar = 2

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        temperature: PositiveFloat = 0.2,
        projection: PositiveInt = 128,
    ):
        super().__init__()
        self.loss = loss
        self.temperature = temperature
        self.head = nn.Sequential(
            nn.Linear(backbone.width, backbone.width), nn.ReLU(), nn.Linear(backbone.width, projection)
        )

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over views; inputs (2B, ...) are the first views, then the second views."""
        z = F.normalize(self.head(backbone(batch.x, batch.mask).pooled), dim=1)
        similarity = z @ z.T / self.temperature
        similarity.fill_diagonal_(torch.finfo(similarity.dtype).min)
        count = len(z)
        positive = torch.arange(count, device=z.device).roll(count // 2)
        values = self.loss(similarity, positive)
        return StepOutput(values.mean(), values.numel())
