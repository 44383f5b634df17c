"""Random choice of the positions to hide."""

from __future__ import annotations

import torch
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.protocols import Backbone


def choose_positions(backbone: Backbone, batch: Batch, ratio: float, whole_words: bool = False) -> Tensor:
    """Return a random mask (B, T) of the share `ratio` of the maskable positions of each example; at least one.

    With `whole_words`, all positions of a word are chosen, or none.
    """
    maskable = backbone.maskable(batch.x)
    if batch.mask is not None:
        maskable = maskable & (batch.mask > 0)
    draws = torch.rand(maskable.shape, device=maskable.device)
    if whole_words:
        draws = draws.gather(1, backbone.word_ids(batch.x))
    draws = draws.masked_fill(~maskable, 2)
    count = (maskable.sum(1) * ratio).round().clamp(min=1).long()
    limit = draws.sort(1).values.gather(1, count[:, None] - 1)
    return (draws <= limit) & maskable
