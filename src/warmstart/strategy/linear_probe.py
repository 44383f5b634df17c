"""Train the head on frozen features."""

from __future__ import annotations

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Positive


class LinearProbe(Strategy):
    """The backbone stays as it is, statistics of its norm layers included.

    Args:
        rate: of the head, times that of the optimizer.
    """

    def __init__(self, rate: Positive = 10.0):
        self.rate = rate

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """The backbone is frozen, the head trains."""
        return [("backbone.*", 0.0), ("objective.*", self.rate)]
