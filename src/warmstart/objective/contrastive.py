"""Contrastive learning of two views of each example: SimCLR (Chen et al. 2020), SupCon (Khosla et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Count, Positive
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy


class SimilarityObjective(Objective, nn.Module):
    """Base class: a loss of the cosine similarities between the projections of all views."""

    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    views: ClassVar = 2

    def __init__(
        self, backbone: Backbone, spec: Spec, loss: LossFunction, temperature: Positive, projection: Count = 128
    ):
        super().__init__()
        self.loss, self.temperature = loss, temperature
        self.head = nn.Sequential(
            nn.Linear(backbone.width, backbone.width), nn.ReLU(), nn.Linear(backbone.width, projection)
        )

    def similarities(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the similarities of all views (2B, 2B), divided by `temperature`."""
        z = F.normalize(self.head(backbone(batch.x, batch.mask).pooled), dim=1)
        return z @ z.T / self.temperature


class Contrastive(SimilarityObjective):
    """NT-Xent loss: cross-entropy over cosine similarities of projections.

    Args:
        temperature: divisor of the similarities.
        projection: width of the projection.
    """

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over views; inputs (2B, ...) are the first views, then the second views."""
        similarity = self.similarities(backbone, batch)
        similarity.fill_diagonal_(torch.finfo(similarity.dtype).min)
        count = len(similarity)
        positive = torch.arange(count, device=similarity.device).roll(count // 2)
        values = self.loss(similarity, positive)
        return StepOutput(values.mean(), values.numel())


class SupervisedContrastive(SimilarityObjective):
    """Cross-entropy over cosine similarities of projections, with all views of the same class as positives.

    Pretraining uses the labels of all generic rows. A finetuning with few labels of the same data set has therefore
    already seen the other labels.

    Source: Khosla et al. (2020), "Supervised Contrastive Learning", equation 2, https://arxiv.org/abs/2004.11362.

    Args:
        loss: loss of the similarities to the other views and of the target probabilities, both (2B, 2B - 1).
        temperature: divisor of the similarities.
        projection: width of the projection.
    """

    target: ClassVar = "category"

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over views; inputs (2B, ...) are the first, then the second views, of classes y (B,)."""
        similarity, y = self.similarities(backbone, batch), torch.cat([batch.y] * 2)
        others = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
        similarity = similarity[others].view(len(y), -1)
        same = (y[:, None] == y)[others].view(len(y), -1).to(similarity.dtype)
        values = self.loss(similarity, same / same.sum(1, keepdim=True))
        return StepOutput(values.mean(), values.numel())
