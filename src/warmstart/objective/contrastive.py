"""SimCLR: contrastive learning of two views of each example (Chen et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import PositiveFloat, PositiveInt
from warmstart.core.spec import Spec
from warmstart.distributed.part import gathered
from warmstart.loss.cross_entropy import cross_entropy


class SimilarityObjective(Objective, nn.Module):
    """Base class: a loss of the cosine similarities between the projections of all views."""

    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    views: ClassVar = 2

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        temperature: PositiveFloat,
        projection: PositiveInt = 128,
    ):
        super().__init__()
        self.loss, self.temperature = loss, temperature
        self.head = nn.Sequential(
            nn.Linear(backbone.width, backbone.width), nn.ReLU(), nn.Linear(backbone.width, projection)
        )

    def similarities(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the similarities of all views (2B, 2B), divided by `temperature`."""
        z = gathered(F.normalize(self.head(backbone(batch.x, batch.mask).pooled), dim=1))
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
