"""Loss of examples mixed by mixup or CutMix."""

from __future__ import annotations

from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.protocols import LossFunction


def mixed_loss(loss: LossFunction, outputs: Tensor, batch: Batch) -> Tensor:
    """Return one value per example (B,): for mixed examples, the losses of both targets, weighted by their shares.

    As in the code of Zhang et al. (2018), "mixup", https://arxiv.org/abs/1710.09412. It also works for losses that do
    not take class probabilities; for cross-entropy it equals the loss of the mixed targets.
    """
    values = loss(outputs, batch.y)
    if batch.share is None:
        return values
    return batch.share * values + (1 - batch.share) * loss(outputs, batch.partner)
