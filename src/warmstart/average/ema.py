"""Exponential moving average of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from warmstart.core.ranges import OpenUnitInterval


class EMA:
    """Moving average with decay min(decay, (1 + n) / (10 + n)) at step n, which reduces the bias to initial weights.

    Args:
        decay: decay of the average, between 0 and 1.
    """

    def __init__(self, decay: OpenUnitInterval = 0.999):
        self.decay = decay

    def includes(self, step: int, total: float) -> bool:
        return True

    def update(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Update `averaged` with `current` in place; `count` () is the number of previous updates."""
        n = int(count)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averaged, current, count)
