"""Stochastic weight averaging.

Izmailov et al. 2018, Averaging weights leads to wider optima and better generalization.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn

from warmstart.core.errors import UserError
from warmstart.core.ranges import Count, StepFraction


class SWA:
    """The mean of the weights at every so many steps of the last part of a run.

    Args:
        start: the share of the steps that is over before averaging begins, 0 or more and below 1.
        every: steps from one that is averaged to the next.
    """

    def __init__(self, start: StepFraction = 0.75, every: Count = 1):
        self.start, self.every = start, every

    def takes(self, step: int, total: float) -> bool:
        """Those at `every` steps past the start.

        Raises:
            UserError: nobody knows how many steps there will be.
        """
        if math.isinf(total):
            raise UserError("average=swa starts at a share of the steps: give trainer.max_steps or trainer.max_epochs")
        past = step - int(self.start * total)
        return past > 0 and past % self.every == 0

    def update(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Take `current` into the mean `averaged` of `count` () weights, in place."""
        get_swa_multi_avg_fn()(averaged, current, count)
