"""Exponential moving average of the weights.

After Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging.
"""

from __future__ import annotations

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from warmstart.core.ranges import OpenUnitInterval


class EMA:
    """After n steps the average keeps min(decay, (1 + n) / (10 + n)) of itself, so that it soon forgets the start.

    Args:
        decay: between 0 and 1.
    """

    def __init__(self, decay: OpenUnitInterval = 0.999):
        self.decay = decay

    def takes(self, step: int, total: float) -> bool:
        """Every step."""
        return True

    def update(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Move `averaged` towards `current` in place; `count` () is how many are in it."""
        done = int(count)
        get_ema_multi_avg_fn(min(self.decay, (1 + done) / (10 + done)))(averaged, current, count)
