"""The loss of examples of which some are mixed with others."""

from __future__ import annotations

from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.protocols import LossFunction


def mixed_loss(loss: LossFunction, outputs: Tensor, batch: Batch) -> Tensor:
    """One value per example (B,); of mixed ones, the losses for both targets, weighted by their shares.

    So it is in the code of Zhang et al. (2018), "mixup", https://arxiv.org/abs/1710.09412, and it serves losses that
    take no shares of classes; for cross-entropy it is the loss for mixed targets.
    """
    values = loss(outputs, batch.y)
    if batch.share is None:
        return values
    return batch.share * values + (1 - batch.share) * loss(outputs, batch.partner)
