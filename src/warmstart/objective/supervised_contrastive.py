"""SupCon: supervised contrastive learning (Khosla et al. 2020)."""

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


class SupervisedContrastive(Objective, nn.Module):
    """Cross-entropy over cosine similarities of projections, with all views of the same class as positives.

    Pretraining uses the labels of all generic rows. A finetuning with few labels of the same data set has therefore
    already seen the other labels.

    Source: Khosla et al. (2020), "Supervised Contrastive Learning", equation 2, https://arxiv.org/abs/2004.11362.

    Args:
        backbone: any backbone.
        spec: shape and type of an example.
        loss: loss of the similarities to the other views and of the target probabilities, both (2B, 2B - 1).
        temperature: temperature of the softmax over similarities.
        projection: width of the projection.
    """

    target: ClassVar = "category"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    views: ClassVar = 2

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        temperature: PositiveFloat = 0.1,
        projection: PositiveInt = 128,
    ):
        super().__init__()
        self.loss = loss
        self.temperature = temperature
        self.head = nn.Sequential(
            nn.Linear(backbone.width, backbone.width), nn.ReLU(), nn.Linear(backbone.width, projection)
        )

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over views; inputs (2B, ...) are the first, then the second views, of classes y (B,)."""
        z = F.normalize(self.head(backbone(batch.x, batch.mask).pooled), dim=1)
        y = torch.cat([batch.y] * 2)
        others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        similarity = (z @ z.T / self.temperature)[others].view(len(z), -1)
        same = (y[:, None] == y)[others].view(len(z), -1).to(similarity.dtype)
        values = self.loss(similarity, same / same.sum(1, keepdim=True))
        return StepOutput(values.mean(), values.numel())
