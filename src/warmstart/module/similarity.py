"""How far training has moved a backbone's features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from warmstart.contracts import Batch

ROWS = 512  # as many examples are enough to compare features by


@torch.no_grad()
def pooled_features(module: Any, batch: Batch) -> Tensor:
    """Pooled features (N, D) of a batch, raw as a loader hands it out."""
    batch = batch.to(next(module.parameters()).device)
    was_training = module.training
    module.eval()
    features = module.backbone(module.augment.scale(batch.x), batch.mask).pooled.float().cpu()
    module.train(was_training)
    return features


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of features (N, D) and (N, E) of the same examples: 1 is the same up to rotation.

    Source: Kornblith et al. (2019), "Similarity of Neural Network Representations Revisited",
    https://arxiv.org/abs/1905.00414. Features that do not vary are like nothing: 0.
    """
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    norm = torch.linalg.norm(a.T @ a) * torch.linalg.norm(b.T @ b)
    return float(torch.linalg.norm(b.T @ a) ** 2 / norm) if norm > 0 else 0.0
