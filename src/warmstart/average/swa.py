"""Stochastic weight averaging (Izmailov et al. 2018)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn

from warmstart.core.errors import UserError
from warmstart.core.ranges import PositiveInt, StepFraction


class SWA:
    """Mean of the weights at every `every` steps in the last part of a run.

    Args:
        start: share of the steps after which averaging starts, 0 or more and below 1.
        every: number of steps between averaged weights.
    """

    def __init__(self, start: StepFraction = 0.75, every: PositiveInt = 1):
        self.start, self.every = start, every

    def includes(self, step: int, total: float) -> bool:
        """Return whether the weights of a step are averaged.

        Raises:
            UserError: the number of steps of the run is unlimited.
        """
        if math.isinf(total):
            raise UserError("average=swa starts at a share of the steps: give trainer.max_steps or trainer.max_epochs")
        past = step - int(self.start * total)
        return past > 0 and past % self.every == 0

    def update(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Update `averaged`, the mean of `count` () weights, with `current` in place."""
        get_swa_multi_avg_fn()(averaged, current, count)
