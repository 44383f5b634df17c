"""SupCon: supervised contrastive learning (Khosla et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone
from warmstart.distributed.part import gathered
from warmstart.objective.contrastive import SimilarityObjective


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
        similarity, y = self.similarities(backbone, batch), torch.cat([gathered(batch.y)] * 2)
        others = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
        similarity = similarity[others].view(len(y), -1)
        same = (y[:, None] == y)[others].view(len(y), -1).to(similarity.dtype)
        values = self.loss(similarity, same / same.sum(1, keepdim=True))
        return StepOutput(values.mean(), values.numel())
