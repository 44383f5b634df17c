"""Which positions of an example are hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.protocols import Backbone


def choose(backbone: Backbone, batch: Batch, ratio: float, whole: bool = False) -> Tensor:
    """Chosen positions (B, T): the share `ratio` of those of each example that may be hidden, rounded; at least one.

    With `whole`, all positions of a word are chosen, or none.
    """
    able = backbone.maskable(batch.x)
    if batch.mask is not None:
        able = able & (batch.mask > 0)
    draws = torch.rand(able.shape, device=able.device)
    if whole:
        draws = draws.gather(1, backbone.words(batch.x))
    draws = draws.masked_fill(~able, 2)
    count = (able.sum(1) * ratio).round().clamp(min=1).long()
    limit = draws.sort(1).values.gather(1, count[:, None] - 1)
    return (draws <= limit) & able
