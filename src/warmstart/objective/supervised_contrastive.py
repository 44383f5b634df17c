"""SupCon: the views of all examples of one class attract, all others repel (Khosla et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Count, Positive
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy


class SupervisedContrastive(Objective, nn.Module):
    """Softmax over cosine similarities of a projection, divided by `temperature`: views of one class share it equally.

    It trains on the classes of all generic rows: finetuned at few labels of the same data set, it has seen the others.

    Source: Khosla et al. (2020), "Supervised Contrastive Learning", equation 2, https://arxiv.org/abs/2004.11362.

    Args:
        backbone: any.
        spec: what an example looks like.
        loss: of similarities to the other views, and each one's share among those of the class; both (2B, 2B - 1).
        temperature: of the similarities.
        projection: width of the projection.
    """

    target: ClassVar = "category"
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    views: ClassVar = 2

    def __init__(
        self, backbone: Backbone, spec: Spec, loss: LossFunction, temperature: Positive = 0.1, projection: Count = 128
    ):
        super().__init__()
        self.loss = loss
        self.temperature = temperature
        self.head = nn.Sequential(
            nn.Linear(backbone.width, backbone.width), nn.ReLU(), nn.Linear(backbone.width, projection)
        )

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Inputs (2B, ...) hold both views, one after the other, and y their classes (B,); one loss value per view."""
        z = F.normalize(self.head(backbone(batch.x, batch.mask).pooled), dim=1)
        y = torch.cat([batch.y] * 2)
        others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        similarity = (z @ z.T / self.temperature)[others].view(len(z), -1)
        same = (y[:, None] == y)[others].view(len(z), -1).to(similarity.dtype)
        values = self.loss(similarity, same / same.sum(1, keepdim=True))
        return StepOutput(values.mean(), values.numel())
