"""Gradual unfreezing, from the top down."""

from __future__ import annotations

from collections.abc import Callable

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import OpenUnitInterval
from warmstart.strategy.blocks import by_block


class Gradual(Strategy):
    """The head alone at first, then block after block below it, at equal distances; all by a share `until` of the run.

    One schedule spans the run, as in the paper. Source: Howard and Ruder (2018), "Universal Language Model Fine-tuning
    for Text Classification", https://arxiv.org/abs/1801.06146.

    Args:
        until: share of the run after which everything trains, above 0 and below 1.
    """

    def __init__(self, until: OpenUnitInterval = 0.5):
        self.until = until

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Each block from its own time on.

        Raises:
            UserError: the backbone has no blocks.
        """
        blocks = by_block(backbone)
        if not blocks:
            raise UserError(f"strategy=gradual: backbone {type(backbone).__name__} has no blocks: use strategy=lp_ft")
        found: list[tuple[str, Scale]] = [("objective.*", 1.0)]
        for count, names in enumerate(reversed(blocks), start=1):
            scale = from_then_on(self.until * count / len(blocks))
            found += [(f"backbone.{name}", scale) for name in names]
        return found


def from_then_on(start: float) -> Callable[[float], float]:
    """0 until a share `start` of the run is over, then 1."""
    return lambda progress: float(progress >= start)
