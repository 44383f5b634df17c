"""Gradual unfreezing, from the last block to the first."""

from __future__ import annotations

from collections.abc import Callable

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import OpenUnitInterval
from warmstart.strategy.blocks import by_block


class Gradual(Strategy):
    """Train the head first, then unfreeze one block after another at equal intervals, the last at the share `until`.

    The learning rate schedule covers the complete run, as in the paper.

    Source: Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification", https://arxiv.org/abs/1801.06146.

    Args:
        until: share of the run after which all parameters are trained, above 0 and below 1.
    """

    def __init__(self, until: OpenUnitInterval = 0.5):
        self.until = until

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Return scales that are 0 until the block is unfrozen, then 1.

        Raises:
            UserError: the backbone has no blocks.
        """
        blocks = by_block(backbone)
        if not blocks:
            raise UserError(f"strategy=gradual: backbone {type(backbone).__name__} has no blocks: use strategy=lp_ft")
        found: list[tuple[str, Scale]] = [("objective.*", 1.0)]
        for count, names in enumerate(reversed(blocks), start=1):
            scale = step_at(self.until * count / len(blocks))
            found += [(f"backbone.{name}", scale) for name in names]
        return found


def step_at(start: float) -> Callable[[float], float]:
    """Return a function of the progress that is 0 until `start`, then 1."""
    return lambda progress: float(progress >= start)
